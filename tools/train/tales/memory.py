"""Conversations that can only be answered by looking back: words to repeat, and who has what."""
from . import world
from .text import article, capital, choose, pseudo_name, tidy


def some_words(rng, n):
    pools = [world.GIRLS, world.BOYS, world.TOYS, world.COLOURS, list(world.ANIMALS), list(world.PLACES), world.FOODS]
    return [pseudo_name(rng) if rng.random() < 0.12 else rng.choice(rng.choice(pools)) for _ in range(n)]


def repeat_turns(rng):
    turns = []
    for _ in range(rng.choice((1, 2, 3))):
        words = rng.choice((" ", ", ")).join(some_words(rng, rng.choice((1, 2, 3, 5, 8, 12, 20, 30))))
        turns.append((choose(rng, f"[Repeat|Say|Repeat after me|Please repeat|Write]: {words}"), words))
    return turns


def word_list(rng):
    """A bare list that is said several times over."""
    words = rng.choice((" ", ", ", "\n")).join(some_words(rng, rng.choice((4, 8, 16, 32))))
    return "\n\n".join([words] * rng.choice((2, 2, 3)))


# what is said of someone; the question for the thing; the question for the person; the answer
RELATIONS = [
    ("{n} has {o}.", "What does {n} have?", "Who has {o}?", "{n} has {o}."),
    ("{n} found {o}.", "What did {n} find?", "Who found {o}?", "{n} found {o}."),
    ("{n} wants {o}.", "What does {n} want?", "Who wants {o}?", "{n} wants {o}."),
    ("{n} lost {o}.", "What did {n} lose?", "Who lost {o}?", "{n} lost {o}."),
    ("{n} likes {o}.", "What does {n} like?", "Who likes {o}?", "{n} likes {o}."),
    ("{n} is a {k}.", "What is {n}?", "Who is a {k}?", "{n} is a {k}."),
    ("{n} lives {p}.", "Where does {n} live?", "Who lives {p}?", "{n} lives {p}."),
    ("{n} is hiding {s}.", "Where is {n}?", "Who is hiding {s}?", "{n} is {s}."),
    ("the {t} is {s}.", "Where is the {t}?", "What is {s}?", "The {t} is {s}."),
    ("the {t} is {c}.", "What colour is the {t}?", "What is {c}?", "The {t} is {c}."),
    ("{n} plays with {m}.", "Who does {n} play with?", "Who plays with {m}?", "{n} plays with {m}."),
]


def fact_turns(rng):
    """A few small facts in the prompt and questions about them."""
    n = rng.choice((1, 2, 3, 3, 4, 5))
    names = [pseudo_name(rng) if rng.random() < 0.15 else name for name in rng.sample(world.GIRLS + world.BOYS + world.ANIMAL_NAMES["she"] + world.ANIMAL_NAMES["he"], 2 * n)]
    toys, spots = rng.sample(world.TOYS, n), rng.sample(world.ROOM_SPOTS, n) if rng.random() < 0.5 else rng.sample([s for _, l in world.PLACES.values() for s in l], n)
    kinds, colours = rng.sample(list(world.ANIMALS), n), rng.sample(world.COLOURS, n)
    one = rng.choice(RELATIONS) if rng.random() < 0.5 else None
    said, asked = [], []
    for i in range(n):
        place, (preposition, _) = rng.choice(list(world.PLACES.items()))
        values = dict(n=names[i], m=names[n + i], t=toys[i], o=f"a {colours[i]} {toys[i]}", c=colours[i], s=spots[i], k=kinds[i], p=f"{preposition} the {place}")
        statement, thing, person, answer = one or rng.choice(RELATIONS)
        said.append(capital(statement.format(**values)))
        if person == "Who lives {p}?" and n > 1:
            person = thing
        asked.append((thing.format(**values), answer.format(**values)))
        asked.append((person.format(**values), answer.format(**values)))
    picked = rng.sample(asked, min(len(asked), rng.choice((1, 2, 3, 4))))
    (question, answer), rest = picked[0], picked[1:]
    first = " ".join(said) + rng.choice((" ", "\n", "\n\n")) + question
    return [(article(q), tidy(a)) for q, a in [(first, answer)] + rest]
