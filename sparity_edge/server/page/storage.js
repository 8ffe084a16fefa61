// Values kept in the browser, where it keeps any for this page: it may be full, or told not to.

/** What was kept under a name; `otherwise` where there is nothing that can be read. */
export function kept(name, otherwise, area = "localStorage") {
  try {
    return JSON.parse(window[area].getItem(`sparity-edge.${name}`)) ?? otherwise;
  } catch {
    return otherwise;
  }
}

/** Keep a value under a name; false: the browser does not. */
export function keep(name, value, area = "localStorage") {
  try {
    window[area].setItem(`sparity-edge.${name}`, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
