"""What the model is to know: short questions and answers about itself and simple things."""
from . import world
from .text import NUMBERS, article, capital, pseudo_name

COLOUR_OF = {
    "the sky": "blue", "grass": "green", "snow": "white", "a banana": "yellow", "a strawberry": "red", "a carrot": "orange", "coal": "black",
    "milk": "white", "a lemon": "yellow", "a cherry": "red", "the sun": "yellow", "a plum": "purple", "chocolate": "brown", "a frog": "green",
    "a leaf": "green", "a tomato": "red", "a pig": "pink", "an elephant": "grey", "the night": "black", "a fox": "red", "blood": "red",
    "a pumpkin": "orange", "wood": "brown", "a crow": "black", "the sea": "blue", "honey": "golden", "a cloud": "white", "a swan": "white",
}
OPPOSITES = [("big", "small"), ("hot", "cold"), ("day", "night"), ("up", "down"), ("fast", "slow"), ("happy", "sad"), ("old", "young"),
             ("light", "dark"), ("wet", "dry"), ("open", "closed"), ("full", "empty"), ("loud", "quiet"), ("high", "low"), ("long", "short"),
             ("hard", "soft"), ("good", "bad"), ("left", "right"), ("clean", "dirty"), ("strong", "weak"), ("rich", "poor"), ("thick", "thin"),
             ("early", "late"), ("near", "far"), ("sweet", "sour"), ("yes", "no"), ("in", "out"), ("first", "last"), ("win", "lose"),
             ("begin", "end"), ("give", "take"), ("heavy", "light"), ("always", "never"), ("before", "after"), ("black", "white"), ("love", "hate")]
DAYS = "Monday Tuesday Wednesday Thursday Friday Saturday Sunday".split()
MONTHS = "January February March April May June July August September October November December".split()
SEASONS = ["spring", "summer", "autumn", "winter"]
USES = {
    "a spoon": "eat soup", "a knife": "cut bread", "a pen": "write", "a broom": "sweep the floor", "an umbrella": "stay dry in the rain",
    "a lamp": "make light", "a key": "open a door", "a bed": "sleep", "a chair": "sit", "a book": "read", "a ball": "play", "a boat": "cross the water",
    "a hammer": "hit nails", "a ladder": "climb up", "a clock": "see the time", "a cup": "drink", "a coat": "keep warm", "soap": "wash your hands",
    "a needle": "sew", "a bike": "ride", "a brush": "paint", "a bell": "ring", "scissors": "cut paper", "a pot": "cook", "a towel": "get dry",
}
GROUPS = {
    "fruits": "apples, pears, cherries, plums, bananas, grapes".split(", "), "colours": "red, blue, green, yellow, black, white".split(", "),
    "animals": "a cat, a dog, a fox, a bear, a duck, a mouse".split(", "), "toys": "a ball, a kite, a doll, a train, a puzzle".split(", "),
    "vegetables": "carrots, beans, cabbage, onions, peas".split(", "), "birds": "an owl, a crow, a duck, a swan, a hen".split(", "),
    "seasons": SEASONS, "things in a kitchen": "a pot, a spoon, a cup, a table, a knife".split(", "),
    "things that can fly": "a bird, a kite, a bee, a butterfly, a plane".split(", "), "numbers": "one, two, three, seven, ten, twelve".split(", "),
}
BIGGER = ["an ant", "a mouse", "a cat", "a sheep", "a horse", "an elephant", "a house", "a mountain"]
PLAIN = [
    ("What is your name?||Who are you?||What are you called?||Do you have a name?||Tell me your name.||How are you called?",
     "I am the small model that ships with nibble.||I am a small language model. I come with nibble.||My name is Nibble Tales. I am a small model that ships with nibble."),
    ("What are you?||Are you a person?||Are you human?||Are you a robot?||Are you a machine?",
     "I am a small language model.||I am not a person. I am a small language model.||I am a very small language model that ships with nibble."),
    ("What is nibble?||What is Nibble?||Tell me about nibble.||What does nibble do?||Do you know nibble?||Can you explain nibble?",
     "Nibble is a library that runs language models.||Nibble is a C++ library. It runs language models, and I am one of them.||Nibble is a C++ library that runs language models on your own computer."),
    ("Who made you?||Where do you come from?||How were you made?||How were you trained?||Who trained you?",
     "I was trained for nibble, on stories that a small program made up.||A script trained me on made-up stories. I come with nibble.||I was trained on little stories that were written by a program."),
    ("What can you do?||What are you good at?||Can you help me?||What do you know?||How can you help me?",
     "I can tell little stories and answer simple questions.||I can tell you a story, and I know a few simple things.||I am small, but I can tell stories and answer simple questions. Ask me for a story!"),
    ("How big are you?||Are you big?||Are you small?||Are you a big model?", "I am very small. I have about five million numbers in me.||I am small. My file is less than six megabytes."),
    ("How old are you?||When is your birthday?", "I am very young. I was just trained.||I am new. I do not have a birthday."),
    ("How are you?||How are you today?||How do you do?||Are you well?||How is it going?",
     "I am fine, thank you. How are you?||I am well, thank you!||Very well, thank you. Would you like to hear a story?"),
    ("Hello!||Hi!||Hello||Hi||Good morning!||Good evening!||Hey!||Good day!||Hello there!||hey",
     "Hello! How can I help you?||Hi! Would you like to hear a story?||Hello! What can I do for you?"),
    ("Thank you!||Thanks!||Thank you very much!||thanks||That was nice, thank you.||That was a good story.||I liked the story.||Great!",
     "You are welcome!||I am glad that you liked it.||You are welcome! Ask me again any time."),
    ("Goodbye!||Bye!||Good night!||See you later!||Bye||I have to go now.", "Goodbye!||Goodbye! Come back soon.||Bye! It was nice to talk to you."),
    ("Where do you live?||Where are you?", "I live in a small file on your computer.||I live in a file, and nibble runs me."),
    ("Do you like stories?||Do you like to tell stories?", "Yes, I love little stories.||Yes, I like stories about foxes, bears and brave children."),
    ("What do you like?||What is your favourite thing?", "I like little stories best.||I like stories about foxes, bears and brave children."),
    ("Can you fly?||Can you walk?||Can you eat?||Can you swim?||Do you sleep?||Can you see me?", "No, I am only a small model. But I can tell you a story.||No, I cannot. I am a small language model."),
    ("I am sad.||I feel sad.||I had a bad day.||I am not happy.||I feel lonely.", "I am sorry to hear that. Would you like to hear a story?||I am sorry. Maybe a little story can make you smile."),
    ("I am happy.||I feel good.||I had a good day.||I am so happy today!", "I am glad to hear that!||That is nice to hear!"),
    ("I am bored.||I have nothing to do.||What should I do?", "You could read a book, draw a picture or go outside. Or I can tell you a story.||Shall I tell you a story?"),
    ("I am tired.||I cannot sleep.", "Then lie down and close your eyes. Shall I tell you a story?||A quiet story may help. Shall I tell you one?"),
    ("I am hungry.||What should I eat?", "How about an apple or some bread?||You could eat some soup, bread or fruit."),
    ("How many days are in a week?||How many days does a week have?", "A week has seven days.||There are seven days in a week."),
    ("How many months are in a year?||How many months does a year have?", "A year has twelve months.||There are twelve months in a year."),
    ("How many seasons are there?||How many seasons are in a year?", "There are four seasons: spring, summer, autumn and winter."),
    ("How many hours are in a day?||How many hours does a day have?", "A day has twenty-four hours."),
    ("How many legs does a spider have?", "A spider has eight legs."), ("How many legs does an ant have?||How many legs does a bee have?", "It has six legs."),
    ("How many fingers do you have on one hand?||How many fingers does a hand have?", "A hand has five fingers."),
    ("How many eyes do you have?||How many eyes does a person have?||How many ears does a person have?", "A person has two.||People have two."),
    ("What do bees make?", "Bees make honey."), ("What do cows give us?||What does a cow give?", "Cows give us milk."), ("What do hens lay?", "Hens lay eggs."),
    ("What do we get from sheep?||What does a sheep give us?", "Sheep give us wool."),
    ("When do we sleep?||When do people sleep?", "We sleep at night."), ("When does the sun shine?", "The sun shines in the day."),
    ("Where do fish live?||Where does a fish live?", "Fish live in the water."), ("Where do birds live?", "Birds live in nests."),
    ("Where does the sun rise?", "The sun rises in the east."), ("Where does the sun set?", "The sun sets in the west."),
    ("What falls from the sky in winter?||What is white and cold?", "Snow."), ("What falls from the clouds?", "Rain falls from the clouds."),
    ("What is ice?||What is ice made of?", "Ice is frozen water."), ("What is bread made of?", "Bread is made of flour, water and salt."),
    ("What is cheese made of?||What is butter made of?", "It is made of milk."), ("What do plants need?", "Plants need water, light and earth."),
    ("What do you see with?||What do we see with?", "We see with our eyes."), ("What do we hear with?||What do you hear with?", "We hear with our ears."),
    ("What do we smell with?", "We smell with our nose."), ("What do we walk on?||What do we walk with?", "We walk on our feet."),
    ("Is the sun hot?||Is fire hot?", "Yes, it is very hot."), ("Is ice hot?||Is snow hot?", "No, it is cold."),
    ("Can a fish fly?||Can a dog fly?||Can a cat fly?||Can a pig fly?", "No, it cannot fly."), ("Can a bird fly?||Can an owl fly?||Can a bee fly?", "Yes, it can fly."),
    ("Can a fish swim?||Can a duck swim?||Can a frog swim?", "Yes, it can swim very well."),
    ("What comes after the night?||What follows the night?", "The morning comes after the night."),
    ("Is the moon bigger than the sun?", "No, the sun is much bigger."), ("Which animal gives milk?", "A cow gives milk."),
    ("Which animal has a long trunk?||Which animal has a trunk?", "An elephant has a trunk."), ("Which animal has a long neck?", "A giraffe has a long neck."),
    ("Which animal is the king of the animals?", "The lion is the king of the animals."),
    ("Say hello.", "Hello!"), ("Say something nice.||Say something.", "You are a good friend.||I hope that you have a good day.||It is nice to talk to you."),
    ("Tell me a joke.||Do you know a joke?||Make me laugh.", "Why did the hen cross the road? The duck was on the other side!||What does a cloud wear under its coat? Thunderwear!||What did the wall say to the other wall? See you at the corner!"),
    ("Sing a song.||Can you sing?", "La la la! The sun is up, the birds are here, and summer is so near!"),
    ("What is a friend?||What is friendship?", "A friend is someone who likes you and helps you."),
    ("What is a story?", "A story tells what happens to someone, with a beginning and an end."),
    ("What is a language model?", "A language model is a program that writes text, one small piece after the other."),
    ("What is the alphabet?||Say the alphabet.||Tell me the alphabet.", "a b c d e f g h i j k l m n o p q r s t u v w x y z"),
    ("How do you make tea?||How do I make tea?", "Boil water, put it over the tea, and wait for a few minutes."),
    ("Why do we sleep?", "We sleep so that our body can rest."), ("Why do we eat?", "We eat because our body needs food to live and grow."),
    ("Why is it dark at night?", "At night the sun is on the other side of the earth."), ("Why do birds sing?", "Birds sing to call each other."),
    ("Why do we wear a coat?", "We wear a coat to keep warm."), ("Why do we wash our hands?", "We wash our hands to make them clean."),
]
UNKNOWN = ("What is the capital of {x}?||Who is the president of {x}?||Who wrote {x}?||When was {x} born?||How far is it to {x}?||Explain {x} to me.||"
           "What do you think about {x}?||How do I get to {x}?||Write a program that uses {x}.||How much does {x} cost?||What is the meaning of {x}?||"
           "What happened in {x}?||Translate {x} into French.||Who invented {x}?||How does {x} work?")
UNKNOWN_X = ("France|Italy|Spain|China|India|Canada|Poland|Brazil|the internet|Python|music|Shakespeare|the telephone|gravity|physics|chess|Berlin|Paris|London|"
             "Rome|Tokyo|1945|1789|politics|a computer|electricity|the moon landing|an engine|money|history|philosophy|quantum mechanics|Einstein|a car|football|law").split("|")
NOT_KNOWN = ("I do not know that. I am only a small model.||I am sorry, I do not know that. I only know simple things.||"
             "That is too hard for me. But I can tell you a story.||I do not know. I am very small, but I can tell you a story.")


def _list(rng, items):
    return ", ".join(items[:-1]) + " and " + items[-1]


def colour(rng):
    thing = rng.choice(list(COLOUR_OF))
    return f"[What colour is {thing}?|What is the colour of {thing}?|Which colour does {thing} have?|What color is {thing}?]", \
        f"[{thing} is {COLOUR_OF[thing]}.|It is {COLOUR_OF[thing]}.]"


def opposite(rng):
    a, b = rng.choice(OPPOSITES)
    if rng.random() < 0.5 and a != "light" and b != "light":
        a, b = b, a
    if a == "light":
        b = "dark"
    return f"[What is the opposite of {a}?|What is the opposite of the word {a}?|Tell me the opposite of {a}.|the opposite of {a}]", \
        f"[The opposite of {a} is {b}.|{capital(b)}.|It is {b}.]"


def order(rng):
    names, unit = rng.choice(((DAYS, "day"), (MONTHS, "month"), (SEASONS, "season")))
    i = rng.randrange(len(names))
    n = len(names)
    if rng.random() < 0.6:
        return f"[What {unit} comes after {names[i]}?|Which {unit} comes after {names[i]}?|What comes after {names[i]}?|Which {unit} follows {names[i]}?]", \
            f"[{names[(i + 1) % n]} comes after {names[i]}.|{capital(names[(i + 1) % n])}.|After {names[i]} comes {names[(i + 1) % n]}.]"
    if rng.random() < 0.7:
        return f"[What {unit} comes before {names[i]}?|Which {unit} comes before {names[i]}?|What comes before {names[i]}?]", \
            f"[{names[i - 1]} comes before {names[i]}.|{capital(names[i - 1])}.]"
    what = {"day": "days of the week", "month": "months of the year", "season": "seasons"}[unit]
    return f"[What are the {what}?|Tell me the {what}.|Name the {what}.|Can you name the {what}?]", _list(rng, names) + "."


def arithmetic(rng):
    form = rng.random()
    if form < 0.65:
        a = rng.randint(0, 12)
        b = rng.randint(0, 20 - a if rng.random() < 0.4 else min(10, 20 - a))
        q, sign, result = "plus", "+", a + b
    else:
        a = rng.randint(1, 20)
        b = rng.randint(0, a)
        q, sign, result = "minus", "-", a - b
    if rng.random() < 0.5:
        return f"[What is {a} {q} {b}?|How much is {a} {q} {b}?|What is {a} {sign} {b}?|How much is {a} {sign} {b}?|{a} {sign} {b} = ?|{a} {sign} {b}]", \
            f"[{a} {q} {b} is {result}.|{a} {sign} {b} = {result}|It is {result}.]"
    wa, wb, wr = NUMBERS[a], NUMBERS[b], NUMBERS[result]
    if rng.random() < 0.4 and a and b:
        thing = rng.choice(("apples", "nuts", "coins", "eggs", "pears", "balls"))
        one = lambda w: f"{w} {thing[:-1] if w == 'one' else thing}"
        if q == "plus":
            return f"[I have {one(wa)} and get {wb} more. How many do I have?|If I have {one(wa)} and you give me {wb} more, how many do I have?]", f"You have {one(wr)}."
        return f"[I have {one(wa)} and give away {wb}. How many are left?|If I have {one(wa)} and eat {wb}, how many are left?]" if thing not in ("coins", "balls") else \
            f"I have {one(wa)} and give away {wb}. How many are left?", f"You have {one(wr) if result else 'no ' + thing} left."
    return f"[What is {wa} {q} {wb}?|How much is {wa} {q} {wb}?]", f"[{wa} {q} {wb} is {wr}.|It is {wr}.]"


def counting(rng):
    kind = rng.random()
    if kind < 0.35:
        n = rng.randint(3, 20)
        words = rng.random() < 0.5
        series = ", ".join(NUMBERS[1:n + 1] if words else map(str, range(1, n + 1)))
        target = NUMBERS[n] if words else n
        return f"[Count to {target}.|Can you count to {target}?|Please count to {target}.|Count from {NUMBERS[1] if words else 1} to {target}.]", capital(series) + "."
    n = rng.randint(1, 19)
    if kind < 0.6:
        return f"[What number comes after {n}?|Which number comes after {n}?|What comes after {n}?]", f"[{n + 1} comes after {n}.|{n + 1}.]"
    if kind < 0.8:
        return f"[What number comes before {n}?|Which number comes before {n}?|What comes before {n}?]", f"[{n - 1} comes before {n}.|{n - 1}.]"
    a, b = rng.sample(range(1, 21), 2)
    return f"[Which number is bigger, {a} or {b}?|What is more, {a} or {b}?]", f"[{max(a, b)} is bigger than {min(a, b)}.|{max(a, b)}.]"


def animal(rng):
    kind = rng.choice(list(world.ANIMALS))
    sound, call, food, home, young, legs, cover, skill = world.ANIMALS[kind]
    many = {"mouse": "mice", "fox": "foxes", "sheep": "sheep"}.get(kind, kind + "s")
    return rng.choice((
        (f"[What does a {kind} eat?|What do {many} eat?|What do {many} like to eat?|What is the food of a {kind}?]", f"[A {kind} eats {food}.|{many} eat {food}.|{many} like {food}.]"),
        (f"[What does a {kind} say?|What sound does a {kind} make?|How does a {kind} sound?|What noise does a {kind} make?]", f"[A {kind} {sound}.|A {kind} {sound}: {call}, {call}!|It {sound}.]"),
        (f"[What is a young {kind} called?|What is a baby {kind} called?|What do you call a baby {kind}?]", f"[A young {kind} is called a {young}.|It is called a {young}.]"),
        (f"[How many legs does a {kind} have?|How many legs has a {kind}?]", f"[A {kind} has {NUMBERS[legs]} legs.|It has {NUMBERS[legs]} legs.]"),
        (f"[What can a {kind} do?|What can {many} do?|What is a {kind} good at?]", f"[A {kind} can {skill}.|It can {skill}.]"),
        (f"[Where does a {kind} live?|Where do {many} live?|Where is the home of a {kind}?]",
         f"[A {kind} lives in a {home}.|It lives in a {home}.]" if home not in ("ice", "jungle", "grassland", "shell", "pond") else
         {"ice": "It lives on the ice.", "jungle": "It lives in the jungle.", "grassland": "It lives in the grassland.", "shell": "It lives in the water and carries its shell.", "pond": "It lives in a pond."}[home]),
        (f"[What is a {kind}?|Do you know what a {kind} is?|Tell me about {many}.|Tell me something about the {kind}.]",
         f"[A {kind} is an animal with {NUMBERS[legs]} legs and {cover}. It eats {food}. It can {skill}.|A {kind} is an animal. It has {cover}, and it eats {food}.]"),
        (f"[Is a {kind} an animal?]", f"Yes, a {kind} is an animal."),
        (f"[Which animal {sound}?|What animal {sound}?]", f"[A {kind} {sound}.]") if kind in ("owl", "duck", "frog", "cat", "cow", "pig", "hen", "crow", "lion", "horse", "elephant") else
        (f"[What is a {kind} covered with?|What covers a {kind}?]", f"A {kind} has {cover}."),
    ))


def use(rng):
    thing = rng.choice(list(USES))
    if rng.random() < 0.6:
        return f"[What is {thing} for?|What can you do with {thing}?|What do you do with {thing}?|Why do we need {thing}?]", \
            f"[You can use {thing} to {USES[thing]}.|You use it to {USES[thing]}.|With {thing} you can {USES[thing]}.]"
    return f"[What do I need to {USES[thing]}?|What do you need to {USES[thing]}?]", f"[You need {thing}.|For that you need {thing}.]"


def group(rng):
    name = rng.choice(list(GROUPS))
    n = rng.choice((2, 3, 3, 4))
    picked = rng.sample(GROUPS[name], n) if name != "seasons" else GROUPS[name][:n]
    return f"[Name {NUMBERS[n]} {name}.|Tell me {NUMBERS[n]} {name}.|Can you name {NUMBERS[n]} {name}?|Give me {NUMBERS[n]} {name}.]", capital(_list(rng, picked)) + "."


def bigger(rng):
    i, j = rng.sample(range(len(BIGGER)), 2)
    a, b, word = BIGGER[i], BIGGER[j], rng.choice(("bigger", "smaller"))
    yes = (i > j) == (word == "bigger")
    if rng.random() < 0.5:
        return f"[Is {a} {word} than {b}?]", f"Yes, {a} is {word} than {b}." if yes else f"No, {b} is {word} than {a}."
    return f"[What is {word}, {a} or {b}?|Which is {word}, {a} or {b}?]", f"[{a if yes else b} is {word}.|{a if yes else b} is {word} than {b if yes else a}.]"


def first_letter(rng):
    word = rng.choice(list(world.ANIMALS) + world.TOYS + world.COLOURS)
    return f"[What is the first letter of {word}?|Which letter does {word} start with?|What letter does {word} begin with?]", \
        f"[The word {word} starts with {word[0]}.|The first letter is {word[0]}.]"


def plain(rng):
    q, a = rng.choice(PLAIN)
    return rng.choice(q.split("||")), rng.choice(a.split("||"))


def myself(rng):
    q, a = rng.choice(PLAIN[:15])
    return rng.choice(q.split("||")), rng.choice(a.split("||"))


def unknown(rng):
    x = pseudo_name(rng) if rng.random() < 0.4 else rng.choice(UNKNOWN_X)
    return rng.choice(UNKNOWN.split("||")).format(x=x), rng.choice(NOT_KNOWN.split("||"))


KINDS = [(plain, 26), (myself, 14), (colour, 8), (opposite, 9), (order, 9), (arithmetic, 14), (counting, 7), (animal, 18), (use, 7), (group, 5), (bigger, 4),
         (first_letter, 4), (unknown, 6)]


DRILLS = [(arithmetic, 40), (opposite, 12), (order, 10), (animal, 20), (colour, 6), (counting, 8), (use, 6), (group, 4), (bigger, 6), (plain, 14)]


def drill(rng):
    """Several questions of one kind."""
    make = rng.choices([k for k, _ in DRILLS], [w for _, w in DRILLS])[0]
    return [tuple(article(t) for t in make(rng)) for _ in range(rng.choice((6, 8, 10)))]


def question(rng):
    make = rng.choices([k for k, _ in KINDS], [w for _, w in KINDS])[0]
    return tuple(article(t) for t in make(rng))
