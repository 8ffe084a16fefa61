// Texts that leave the page: to the clipboard, or as a file to save.

const SHOWN_FOR = 1500; // milliseconds

/** Copy a text, and say so on the button that asked for it. */
export async function copied(button, text) {
  const before = button.textContent;
  button.textContent = (await toClipboard(text)) ? "Copied" : "Not allowed";
  setTimeout(() => (button.textContent = before), SHOWN_FOR);
}

/** Have the browser save a text as a file. */
export function saved(name, text) {
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/plain" }));
  link.download = name;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

async function toClipboard(text) {
  try {
    await navigator.clipboard.writeText(text);
    return true;
  } catch {
    return byCommand(text); // a page that came without https has no clipboard
  }
}

function byCommand(text) {
  const had = document.activeElement;
  const field = document.createElement("textarea");
  field.value = text;
  field.className = "hidden";
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  had?.focus();
  return done;
}
