"""The small template language all generated text is written in.

`[a|b|c]` picks one alternative at random (alternatives may nest and may be empty);
`{name}` and `{name.attribute}` insert a value after the choice has been made.
"""
import re

_CHOICE = re.compile(r"\[([^\[\]]*)\]")
_SENTENCE_START = re.compile(r'(^|[.!?]\s+|[,:.!?]\s+"|^")([a-z])')
_AFTER_QUOTE = re.compile(r'([.!?])("\s+)([a-z])(?=(\S*(?:\s+\S+){0,4}))')
_SPEECH = re.compile(r"\b(said|asked|cried|called|shouted|whispered|thought)\b")
_AN = re.compile(r"\b([Aa]) (?=[aeiou])(?!one\b|us[eu]|uni)")
_SPACES = re.compile(r" {2,}")


def choose(rng, template):
    """Resolves every [a|b|c] of the template, innermost first."""
    while True:
        template, count = _CHOICE.subn(lambda m: rng.choice(m.group(1).split("|")), template)
        if not count:
            return template


def capital(text):
    return text[:1].upper() + text[1:]


def article(text):
    """`an` before vowels."""
    return _AN.sub(r"\1n ", text)


def _after_quote(match):
    """What follows a question or a cry in quotes is a new sentence unless it says who spoke."""
    mark, gap, letter, rest = match.groups()
    goes_on = mark != "." and _SPEECH.search(letter + rest.split(".")[0])
    return mark + gap + (letter if goes_on else letter.upper())


def tidy(text):
    """Single spaces, `an` before vowels, capitals at sentence starts."""
    text = _SPACES.sub(" ", text).replace(" .", ".").replace(" ,", ",").replace(" !", "!").replace(" ?", "?")
    text = _AFTER_QUOTE.sub(_after_quote, article(text.strip()))
    return _SENTENCE_START.sub(lambda m: m.group(1) + m.group(2).upper(), text)


def fill(rng, template, values):
    """One expansion of a template. Every value is also known under its capitalised name."""
    return tidy(choose(rng, template).format(**values))


def pseudo_name(rng):
    """A name nobody has, so that names are learned as something to copy."""
    syllables = [rng.choice("b d f g h k l m n p r s t v w z br dr kr tr st fl gr".split()) + rng.choice("a e i o u".split())
                 + rng.choice(("", "", "n", "r", "l", "s", "x", "ck")) for _ in range(rng.choice((2, 2, 3)))]
    return capital("".join(syllables))


NUMBERS = ("zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen "
           "fifteen sixteen seventeen eighteen nineteen twenty").split()
