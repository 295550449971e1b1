"""Conversations in ChatML: small talk, simple questions, stories on request, questions about a story."""
from . import facts, memory, plots_away, plots_home
from .story import Story
from .text import choose, pseudo_name, tidy
from .world import BOYS, GIRLS

PLOTS = plots_home.HOME_PLOTS + plots_away.AWAY_PLOTS
SYSTEM = ["You are a helpful assistant.", "You are a small model that tells stories.", "You are a friendly storyteller.",
          "Answer in one short sentence.", "You are a friendly assistant. Keep your answers short."]
ABOUT = ["[Tell me|Write|Please tell me|Can you tell me|Please write|Make up|I want to hear|Could you write] a [short|little|] story about {t}[.|.|, please.]",
         "[Write|Tell me] a [bedtime|] story about {t}.", "A story about {t}[, please.|.]", "Do you know a story about {t}?", "Story: {t}"]
NAMED = ["[Tell me|Write] a story about {t} [named|called] {n}.", "[Tell me|Write] a story about {n} the {k}."]
ANY = ["[Tell me|Write|Please tell me|Can you tell me] a [short|little|bedtime|nice|] story[.|.|, please.]", "[Another|One more] story, please.", "Tell me a story!",
       "I would like to hear a story.", "Once upon a time..."]
GO_ON = ["Yes.", "Yes, please.", "yes please", "Sure!", "Okay."]


def new_story(rng):
    story = Story(rng)
    rng.choice(PLOTS)(story)
    return story


def story_request(rng, story):
    h = story.h
    named = not h.name.startswith("the ")
    roll = rng.random()
    if roll < 0.15:
        return choose(rng, rng.choice(ANY))
    if roll < 0.40 and named:
        return tidy(choose(rng, rng.choice(NAMED)).format(t=h.a_kind, n=h, k=h.kind))
    topic = rng.choice(story.topics + [h.a_kind] * 2 + [f"a {h.kind} and a {story.f.kind}"])
    return tidy(choose(rng, rng.choice(ABOUT)).format(t=topic))


def roughen(rng, question):
    """People do not always write capitals and question marks."""
    roll = rng.random()
    if roll < 0.12:
        question = question[0].lower() + question[1:]
    if roll < 0.07 or roll > 0.95:
        question = question.rstrip("?.!")
    if 0.2 < roll < 0.26 and question.endswith("?"):
        question = rng.choice(("Please tell me: ", "Hello! ", "I have a question. ", "Can you tell me? ", "Hi, ")) + question
    return question


def fact_turn(rng, fact=None):
    question, answer = fact or facts.question(rng)
    return roughen(rng, choose(rng, question)), tidy(choose(rng, answer))


def name_turns(rng):
    """The user says a name and the model is to remember it."""
    name = pseudo_name(rng) if rng.random() < 0.2 else rng.choice(GIRLS + BOYS)
    turns = [(choose(rng, rng.choice((f"My name is {name}.", f"I am {name}.", f"Hello, I am {name}.", f"Hi! My name is {name}.", f"Call me {name}."))),
              choose(rng, f"[Hello {name}! It is nice to meet you.|Hi {name}! How can I help you?|Nice to meet you, {name}!]"))]
    turns += [fact_turn(rng) for _ in range(rng.choice((0, 0, 1, 2)))]
    turns.append((choose(rng, "[What is my name?|Do you know my name?|Who am I?|Do you remember my name?]"), choose(rng, f"[Your name is {name}.|You are {name}.]")))
    return turns


def story_turns(rng):
    """A story on request, and then perhaps questions about it."""
    story = new_story(rng)
    turns = [(story_request(rng, story), story.text())]
    if rng.random() < 0.5:
        picked = rng.sample(story.facts, min(len(story.facts), rng.randint(1, 3)))
        turns += [(roughen(rng, q), a) for q, a in picked]
    if rng.random() < 0.15:
        turns.append(("Thank you!", rng.choice(("You are welcome!", "I am glad that you liked it."))))
    return turns


def reading_turns(rng):
    """A story in the prompt and questions about it."""
    story = new_story(rng)
    picked = rng.sample(story.facts, min(len(story.facts), rng.randint(1, 4)))
    (q, a), rest = picked[0], picked[1:]
    form = rng.random()
    if form < 0.45:
        first = f"{story.text()}\n\n{q}"
    elif form < 0.75:
        first = f"Read this story:\n\n{story.text()}\n\n{q}"
    else:
        first = f"{q}\n\n{story.text()}"
    return [(first, a)] + [(roughen(rng, q2), a2) for q2, a2 in rest]


def small_talk(rng):
    turns = []
    if rng.random() < 0.2:
        turns.append(rng.choice((("Hello!", "Hello! How can I help you?"), ("Hi!", "Hi! Would you like to hear a story?"))))
        if turns[0][1].endswith("story?") and rng.random() < 0.5:
            return turns + [(rng.choice(GO_ON), new_story(rng).text())]
    return turns + [fact_turn(rng) for _ in range(rng.choice((1, 2, 3, 4, 6, 9)))]


def conversation(rng, memory_share=0.0, drill_share=0.0):
    """`memory_share` of the conversations are exercises in looking back, `drill_share` of the rest
    are many questions of one kind."""
    if memory_share and rng.random() < memory_share:
        return chatml(memory.fact_turns(rng) if rng.random() < 0.6 else memory.repeat_turns(rng))
    if drill_share and rng.random() < drill_share:
        return chatml([fact_turn(rng, fact) for fact in facts.drill(rng)])
    roll = rng.random()
    if roll < 0.44:
        turns = small_talk(rng)
    elif roll < 0.51:
        turns = name_turns(rng)
    elif roll < 0.80:
        turns = story_turns(rng)
    else:
        turns = reading_turns(rng)
    system = rng.choice(SYSTEM) if rng.random() < 0.25 else None
    return chatml(turns, system)


def chatml(turns, system=None):
    text = f"<|im_start|>system\n{system}<|im_end|>\n" if system else ""
    for question, answer in turns:
        text += f"<|im_start|>user\n{question}<|im_end|>\n<|im_start|>assistant\n{answer}<|im_end|>\n"
    return text
