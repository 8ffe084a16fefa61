"""The texts behind golden/smollm2.npz, shared by the script that makes it and the test."""

from __future__ import annotations

PARAGRAPH = (
    "A water mill turns the push of a stream into work. The wheel drives a shaft, the shaft drives "
    "a stone, and the stone grinds 25 sacks of grain before noon.\n\n"
    "def power(flow, height):\n"
    '    """Watts from cubic metres a second and metres."""\n'
    "    return 1000 * 9.81 * flow * height\n"
)
QUESTION = "Explain in a few sentences why the sky looks blue during the day."
AWKWARD = (
    "",
    " ",
    "plain words, nothing else.",
    "  two spaces in front and three behind   ",
    "a" + " " * 40 + "b" + " " * 7 + "\n" * 5 + "\t\t\tc\r\nd",
    "It's, they'll, I'VE, we'd've; 'tis the dogs' bowl",
    "2024-02-29 at 07:05, 3.14159, 1,000,000, 0x1F, x2y3, 12345678901234567890",
    "½ ² ① Ⅻ ٣٤٥ 一二三 ৪৫",
    "\N{GRINNING FACE}\N{WAVING HAND SIGN}\N{EMOJI MODIFIER FITZPATRICK TYPE-4} "
    "\N{MAN}\N{ZERO WIDTH JOINER}\N{WOMAN}\N{ZERO WIDTH JOINER}\N{GIRL} "
    "\N{REGIONAL INDICATOR SYMBOL LETTER N}\N{REGIONAL INDICATOR SYMBOL LETTER Z}",
    "今日は天気がいいですね。北京欢迎你!안녕하세요",
    "Καλημέρα κόσμε, доброе утро, صباح الخير, שלום, नमस्ते दुनिया, สวัสดี",
    "cafe\N{COMBINING ACUTE ACCENT} café n\N{COMBINING TILDE}o\N{COMBINING DIAERESIS} "
    "Z\N{COMBINING ACUTE ACCENT}\N{COMBINING TILDE}\N{COMBINING DIAERESIS}algo",
    "if (x != null && y[0] >= -1) {\n\treturn \"\\n\" + '%s' % (a**2);\n}  // ==>",
    "SELECT * FROM t WHERE a_b<>'it''s' -- note\n#include <stdio.h>\nhttps://x.example/?q=1&r=%20#top",
    "<|im_start|>user\nhello<|im_end|>\n<|im_start|>assistant\n",
    "<|endoftext|>x<|endoftext|> <|im_end|>",
    "< |im_start|> <|im_start|<|im_end|>|> <repo_name>a<file_sep>b<jupyter_code>",
    "zero\N{ZERO WIDTH SPACE}width no\N{NO-BREAK SPACE}break "
    "line\N{LINE SEPARATOR}separator \N{BOM}mark \N{REPLACEMENT CHARACTER} nul\0end",
    "\N{MATHEMATICAL FRAKTUR CAPITAL A}\N{MUSICAL SYMBOL G CLEF}\N{LINEAR B SYLLABLE B008 A}",
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
    "CamelCaseIdentifier snake_case_name SCREAMING_CASE kebab-case-name",
)
# For perplexity: plain English of several kinds, about 750 tokens.
ESSAY = """\
Bread is older than writing. Long before anyone kept accounts, people noticed that a paste of
crushed grain and water, left in a warm place for a day, begins to bubble and smell sour. Baked
on a hot stone, such a paste rises a little and stays soft inside. Nobody knew why, and nobody
needed to. The bubbles come from wild yeast, a fungus that lives on the skins of fruit and on
the grain itself. It eats sugar and gives off alcohol and carbon dioxide. The alcohol boils away
in the oven; the gas is caught in the dough and makes the crumb.

What catches the gas is gluten, a web of two proteins that forms when wheat flour is wetted and
kneaded. Rye has little of it, which is why rye bread is dense, and rice has none. A baker who
wants a light loaf chooses a flour rich in protein, kneads it well, and gives it time. A baker
who wants a tender cake does the opposite: a weak flour, plenty of fat, and as few strokes of
the spoon as will do. Temperature matters as much as time. In a cold kitchen the dough may need
twelve hours, in a hot one it may be ready after two, and the slow loaf usually tastes better,
because bacteria have had time to make acids that the yeast does not.

The harbour lay quiet when Marta came down the steps. Two boats were out already; the third, her
uncle's, was still tied to the wall, and there was no light in the cabin. She called his name
once, not loudly, and waited. A gull walked along the edge of the quay and looked at her as if
she owed it something. "He went up to the house," said a voice behind her. It was the boy from
the ice shed, carrying a bucket in each hand. "He said you were to wait here and not to touch
the engine." Marta laughed. She had been taking that engine apart since she was nine years old,
and she knew very well that it would not start this morning unless somebody touched it.

To plant a hedge, dig a trench as deep as your spade and twice as wide, and loosen the soil at
the bottom with a fork. Mix in two buckets of compost for every metre. Set the young plants a
hand apart in two rows, so that each plant stands opposite a gap. Fill the trench, tread the
soil down firmly, and water it even if rain is on the way. In the first winter cut everything
back to the height of your knee. It looks cruel, but it makes the plants branch from the ground,
and a hedge that is bare at the bottom never fills in later. From the third year on, trim it
twice a year, in early summer and in autumn, and keep the top narrower than the foot, so that
light reaches every leaf.

The committee met on Tuesday to discuss the new bridge. The engineer reported that the old one
could carry eighteen tonnes, and that the dairy's lorries weighed twenty-four. There were three
proposals. The first was to strengthen the arches with steel, which would cost least and last
for fifteen years. The second was a concrete bridge beside the old one, which would then be kept
for people on foot. The third was to build nothing and to send the lorries round by the main
road, eleven kilometres further. After two hours, during which the chairman twice asked the
gallery to be silent, the second proposal was accepted by seven votes to four. Work is to begin
in April, as soon as the river has fallen.
"""
