"""The small world of the stories: who lives in it, where, and with what."""
from .text import capital, pseudo_name

GIRLS = ("Mia Lily Anna Rosa Ella Nora Lucy Emma Clara Ivy Zoe Maya Ruby Hanna Sara Tilda Amy Nina "
         "Grace Daisy Molly Ida Lena Eva Poppy Sofia").split()
BOYS = ("Tom Ben Max Leo Sam Finn Oscar Jack Noah Theo Hugo Adam Paul Otto Felix Jonas Emil Luke Toby "
        "Peter Daniel Anton Milo Henry Oliver Karl").split()
ANIMAL_NAMES = {
    "she": "Hazel Pearl Dotty Luna Misty Olive Maple Honey Willow Fern Bella Nutmeg Flora Minty Penny".split(),
    "he": "Pip Rusty Bruno Patch Chester Moss Barney Tuft Smoky Biscuit Hopper Pepper Ziggy Button Rollo".split(),
}

# kind: sound, what it says, food, home, its young, legs, what covers it, what it does well
ANIMALS = {
    "fox": ("barks", "yip", "berries", "den", "cub", 4, "red fur", "sneak through the grass"),
    "rabbit": ("squeaks", "squeak", "carrots", "burrow", "bunny", 4, "soft fur", "hop"),
    "mouse": ("squeaks", "squeak", "cheese", "hole", "pup", 4, "grey fur", "slip through small holes"),
    "bear": ("growls", "growl", "honey", "cave", "cub", 4, "brown fur", "climb trees"),
    "owl": ("hoots", "hoot", "mice", "tree", "owlet", 2, "feathers", "see in the dark"),
    "duck": ("quacks", "quack", "bread", "nest", "duckling", 2, "feathers", "swim"),
    "frog": ("croaks", "croak", "flies", "pond", "tadpole", 4, "green skin", "jump"),
    "squirrel": ("chatters", "chatter", "nuts", "tree", "pup", 4, "red fur", "climb trees"),
    "hedgehog": ("snuffles", "snuffle", "beetles", "pile of leaves", "hoglet", 4, "spines", "roll into a ball"),
    "cat": ("meows", "meow", "fish", "basket", "kitten", 4, "soft fur", "catch mice"),
    "dog": ("barks", "woof", "bones", "kennel", "puppy", 4, "fur", "follow a smell"),
    "turtle": ("hisses", "hiss", "leaves", "shell", "hatchling", 4, "a hard shell", "swim"),
    "goat": ("bleats", "meh", "grass", "barn", "kid", 4, "hair", "climb rocks"),
    "sheep": ("bleats", "baa", "grass", "barn", "lamb", 4, "wool", "eat grass all day"),
    "horse": ("neighs", "neigh", "hay", "stable", "foal", 4, "hair", "run fast"),
    "cow": ("moos", "moo", "grass", "barn", "calf", 4, "hair", "give milk"),
    "pig": ("oinks", "oink", "apples", "barn", "piglet", 4, "pink skin", "find food in the mud"),
    "hen": ("clucks", "cluck", "corn", "coop", "chick", 2, "feathers", "lay eggs"),
    "beaver": ("slaps its tail", "slap", "bark", "lodge", "kit", 4, "brown fur", "build dams"),
    "crow": ("caws", "caw", "seeds", "nest", "chick", 2, "black feathers", "fly"),
    "lion": ("roars", "roar", "meat", "den", "cub", 4, "golden fur", "roar"),
    "elephant": ("trumpets", "toot", "leaves", "grassland", "calf", 4, "grey skin", "lift logs"),
    "monkey": ("chatters", "chatter", "bananas", "jungle", "baby", 4, "brown fur", "swing in trees"),
    "penguin": ("honks", "honk", "fish", "ice", "chick", 2, "feathers", "swim"),
}
STORY_ANIMALS = [k for k in ANIMALS if k not in ("cow", "sheep", "lion", "horse", "elephant", "penguin", "hen")]

COLOURS = "red blue green yellow white black brown orange pink purple grey golden".split()
TOYS = ("ball kite doll drum boat train puzzle scarf hat bell button ribbon whistle lantern book "
        "marble top teddy umbrella cup spoon flute mitten basket blanket").split()
FOODS = ("bread apples cheese nuts berries pears cookies soup honey carrots plums cherries pie "
         "pancakes grapes").split()
TREATS = ("apple cookie pear plum pancake muffin bun carrot cake pie sandwich").split()

# place: how one is there, and where things hide in it
PLACES = {
    "park": ("in", ["under the bench", "behind the fountain", "in the tall grass", "next to the swings", "under the slide"]),
    "forest": ("in", ["under a fern", "behind the old oak tree", "inside a hollow log", "on a bed of moss", "between two roots"]),
    "garden": ("in", ["under the cabbage leaves", "behind the shed", "next to the roses", "in the wheelbarrow", "under a flower pot"]),
    "meadow": ("in", ["behind a big stone", "in the tall grass", "under a daisy", "next to the fence", "beside the little stream"]),
    "beach": ("on", ["behind a rock", "under a pile of seaweed", "next to a sandcastle", "inside a big shell", "under the old boat"]),
    "farm": ("on", ["behind the barn", "under the hay", "next to the well", "in the chicken coop", "under the cart"]),
    "village": ("in", ["behind the bakery", "under the market table", "next to the well", "on the church steps", "by the mill"]),
    "river": ("by", ["under the bridge", "between two stones", "behind the willow tree", "in the reeds", "on the sandy bank"]),
    "pond": ("by", ["in the reeds", "under a lily leaf", "behind a mossy stone", "next to the little dock", "under the willow tree"]),
    "hill": ("on", ["behind a bush", "under the pine tree", "in a rabbit hole", "next to the old wall", "on the top"]),
    "orchard": ("in", ["under the apple tree", "in a basket", "behind the ladder", "next to the beehives", "in the grass"]),
}
ROOM_SPOTS = ["under the bed", "behind the door", "in the wardrobe", "on the top shelf", "under the table",
              "behind the sofa", "in the toy box", "on the window sill", "under the pillow", "in a drawer"]

# others who can be in a story as children are: the pronouns they go by, and where they live
FOLK = {"princess": ("she", "castle"), "prince": ("he", "castle"), "knight": ("he", "castle"), "witch": ("she", "hut"),
        "wizard": ("he", "tower"), "fairy": ("she", "hut"), "elf": ("he", "hut"), "giant": ("he", "cave"), "robot": ("he", "house"),
        "dragon": ("he she", "cave"), "unicorn": ("she he", "valley"), "pirate": ("he she", "ship"), "sailor": ("he", "ship"),
        "farmer": ("she he", "house"), "queen": ("she", "castle"), "king": ("he", "castle")}

TRAITS = {
    "kind": ["always had a nice word for everyone", "liked to help others"],
    "curious": ["wanted to know everything", "asked a hundred questions a day"],
    "brave": ["was not afraid of much", "liked to try new things"],
    "shy": ["did not speak much", "liked quiet places"],
    "cheerful": ["sang all day long", "laughed a lot"],
    "clever": ["always had a good idea", "could solve any puzzle"],
    "busy": ["never sat still", "always had something to do"],
    "stubborn": ["never gave up", "did not like to change plans"],
    "gentle": ["never hurt a fly", "spoke with a soft voice"],
    "dreamy": ["looked at the clouds for hours", "often forgot the time"],
}
RELATIVES = {"mother": "she", "father": "he", "grandmother": "she", "grandfather": "he", "aunt": "she", "uncle": "he",
             "sister": "she", "brother": "he"}
WEATHER = {
    "sunny": ["the sun was shining", "the sky was blue and clear", "it was warm and bright"],
    "windy": ["the wind was blowing", "a strong wind shook the trees", "leaves were dancing in the wind"],
    "cloudy": ["grey clouds hung in the sky", "the sky was full of clouds", "it was a grey day"],
    "snowy": ["snow was falling", "everything was white with snow", "it was cold and the snow was deep"],
    "foggy": ["a thick fog lay over the land", "the fog was so thick that the trees looked like ghosts"],
}
PRONOUNS = {"she": ("she", "her", "her", "herself"), "he": ("he", "him", "his", "himself")}


class Noun:
    """A thing: `{o}` with its adjective, `{o.noun}` without, `{o.a}` with the article."""

    def __init__(self, noun, adjective=""):
        self.noun, self.adj = noun, adjective
        self.full = f"{adjective} {noun}".strip()
        self.a, self.the = f"a {self.full}", f"the {self.full}"

    def __format__(self, spec):
        return self.full


class Place:
    def __init__(self, rng, name=None):
        self.noun = name or rng.choice(list(PLACES))
        preposition, spots = PLACES[self.noun]
        self.the = f"the {self.noun}"
        self.at = f"{preposition} the {self.noun}"
        self.spots = rng.sample(spots, len(spots))

    def __format__(self, spec):
        return self.the


class Character:
    """Someone in a story; `{h}` is the name, `{h.he}`, `{h.him}`, `{h.his}` the pronouns."""

    def __init__(self, name, kind, pronoun, animal):
        self.name, self.kind, self.animal = name, kind, animal
        self.pronoun = pronoun
        self.he, self.him, self.his, self.himself = PRONOUNS[pronoun]
        self.He, self.His = capital(self.he), capital(self.his)
        self.home = ANIMALS[kind][3] if animal else "house"
        if self.home in ("pond", "shell", "tree", "pile of leaves"):
            self.home = "home"
        if kind in FOLK:
            self.home = FOLK[kind][1]
        self.a_kind = f"a {kind}"
        self.call = f"dear {kind}" if name.startswith("the ") else name  # how others speak to them
        self.food = ANIMALS[kind][2] if animal else None

    def __format__(self, spec):
        return self.name


class Cast:
    """Makes characters, never two of one name or one animal kind in a story."""

    def __init__(self, rng):
        self.rng, self.used = rng, set()

    def _name(self, names):
        if self.rng.random() < 0.05:
            return pseudo_name(self.rng)
        return self._fresh(names)

    def _fresh(self, options):
        pick = self.rng.choice([o for o in options if o not in self.used])
        self.used.add(pick)
        return pick

    def child(self, pronoun=None, folk=0.0):
        pronoun = pronoun or self.rng.choice(("she", "he"))
        name = self._name(GIRLS if pronoun == "she" else BOYS)
        kind = "girl" if pronoun == "she" else "boy"
        if self.rng.random() < folk:
            kind = self._fresh([k for k, (pronouns, _) in FOLK.items() if pronoun in pronouns.split()])
        return Character(name, kind, pronoun, False)

    def beast(self, pronoun=None, kind=None):
        pronoun = pronoun or self.rng.choice(("she", "he"))
        kind = kind or self._fresh(STORY_ANIMALS)
        self.used.add(kind)
        named = self.rng.random() < 0.8
        name = self._name(ANIMAL_NAMES[pronoun]) if named else f"the {kind}"
        return Character(name, kind, pronoun, True)

    def relative(self, of, pronoun=None):
        role = self.rng.choice([r for r, p in RELATIVES.items() if pronoun in (None, p)])
        person = Character(f"{of.his} {role}", role, RELATIVES[role], False)
        person.call = {"mother": "Mama", "father": "Papa", "grandmother": "Grandma", "grandfather": "Grandpa",
                       "aunt": "Auntie", "uncle": "Uncle", "sister": "Sister", "brother": "Brother"}[role]
        return person
