"""One story being told: its cast, its sentences, and the facts that can be asked about it."""
from . import world
from .text import article, capital, choose, fill, tidy


class Story:
    def __init__(self, rng, child=None):
        self.rng, self.cast = rng, world.Cast(rng)
        animal = rng.random() < 0.42 if child is None else not child
        self.h = self.cast.beast() if animal else self.cast.child(folk=0.22)
        other = "he" if self.h.pronoun == "she" else "she"
        # The friend takes the other pronoun, so that `he` and `she` always have one meaning.
        self.f = self.cast.beast(other) if animal or rng.random() < 0.25 else self.cast.child(other)
        self.m = self.cast.relative(self.h, other)
        self.p = world.Place(rng)
        self.trait = rng.choice(list(world.TRAITS))
        self.weather = rng.choice(("sunny",) * 5 + ("windy",) * 3 + ("cloudy",) * 3 + ("snowy", "foggy"))
        self.time = rng.choice(("morning", "afternoon", "day"))
        self.o = world.Noun(rng.choice(world.TOYS), rng.choice(world.COLOURS + ["little", "shiny", "old", "wooden"]))
        self.values, self.parts, self.facts, self.topics = {}, [""], [], []
        self.short = rng.random() < 0.35
        for key in "hfmop":
            self.let(key, getattr(self, key))

    def let(self, key, value):
        """Makes {key} known to the templates, and {Key} as its form at a sentence start."""
        self.values[key] = value
        self.values[capital(key)] = capital(f"{value}")
        return value

    def pick(self, *options):
        return self.rng.choice(options)

    def chance(self, share):
        return self.rng.random() < share

    def fill(self, template):
        return fill(self.rng, template, self.values)

    def say(self, template):
        self.parts[-1] += " " + choose(self.rng, template).format(**self.values)

    def maybe(self, template, share=0.6):
        if self.chance(share * (0.4 if self.short else 1.0)):
            self.say(template)

    def para(self):
        if self.parts[-1] and self.chance(0.75):
            self.parts.append("")

    def ask(self, questions, answers):
        """A fact of this story as (question, answer) templates, several wordings apart by `||`."""
        self.facts.append((self.fill(self.rng.choice(questions.split("||"))),
                           self.fill(self.rng.choice(answers.split("||")))))

    def about(self, *templates):
        self.topics += [article(choose(self.rng, t).format(**self.values)) for t in templates]

    def text(self):
        return "\n\n".join(tidy(part) for part in self.parts if part.strip())

    # ---- openings and endings that fit every plot -------------------------------------------

    def open(self):
        h = self.h
        named = "" if h.name == f"the {h.kind}" else "[named|called] {h}"
        self.let("trait", self.trait)
        self.let("habit", self.rng.choice(world.TRAITS[self.trait]))
        live = "[a small house|a yellow house|a house] [near the [forest|sea|river|mill|hills|old bridge]|by the [sea|river|mill|road]|at the edge of the [forest|village]]"
        if h.kind in world.FOLK:
            live = f"a [big|small|old|quiet|] {h.home} [near|not far from|close to] the [river|forest|sea|mill|road]"
        if h.animal:
            live = f"[a {h.home}|a warm {h.home}|a cozy {h.home}]" if h.home != "home" else "[a quiet corner of the woods|a green valley]"
            live += " [near|not far from|close to] the [river|old mill|road|big oak tree|farm]"
        size = "[little|small|young|]"
        forms = [
            f"[once upon a time,|once,|a long time ago,] there [was|lived] a {size} {h.kind} {named}.",
            f"there was once a {{trait}} {h.kind} {named}.",
            f"{{h}} was a {size} {h.kind} who lived in {live}." if named else f"a {size} {h.kind} lived in {live}.",
            f"in {live}, there lived a {size} {h.kind} {named}.",
            f"a {size} {h.kind} {named} lived in {live}.",
        ]
        form = self.rng.choice(forms)
        self.say(form)
        self.maybe("[{h.He} {habit}.|everyone knew that {h.he} {habit}.]" if "{trait}" in form else "[{h.He} was {trait} and {habit}.|{h.He} {habit}.|everyone knew that {h.he} {habit}.]", 0.5)
        if self.chance(0.3):
            self.ask("Who is the story about?||Who is this story about?||What is the main character called?" if named else "Who is the story about?",
                     f"The story is about a {h.kind} {named}.||It is about a {h.kind} {named}.")
        if h.kind in ("girl", "boy") and self.chance(0.2):
            self.ask("Is {h} a boy or a girl?", f"{{h}} is a {h.kind}.")
        if h.animal and named and self.chance(0.3):
            self.ask("What kind of animal is {h}?||What animal is {h}?", f"{{h}} is a {h.kind}.")

    def aside(self):
        """A sentence of colour that fits any scene."""
        self.maybe("[A bird sang in the distance.|The air smelled of [flowers|rain|wood smoke|fresh bread].|Somewhere a dog barked.|"
                   "{h} hummed a little song.|{h} felt that it would be a special day.|Nobody else was [awake|there] yet.|"
                   "A cat slept on the wall.|The church bell rang [three|seven|nine|ten] times.|{h} was in no hurry.|{h} had slept well.|"
                   "{h} had just eaten a [bowl of soup|slice of bread|red apple].|"
                   "Smoke rose from the chimneys.|The bees were busy [already|].|Everything was quiet.]", 0.35)

    def weather_line(self, share=0.5):
        if self.chance(share):
            self.let("sky", self.rng.choice(world.WEATHER[self.weather]))
            self.say(self.rng.choice((
                f"one {self.time}, {{sky}}.", f"it was a {self.weather} {self.time}, and {{h}} was [in a good mood|awake early|happy].",
                f"one {self.weather} {self.time}, {{h}} looked [out|up] and saw that {{sky}}.")))
            self.aside()
            if self.chance(0.3):
                self.ask("What was the weather like?||How was the weather?",
                         f"It was {self.weather}.||It was a {self.weather} {self.time}.")
            return "[then|soon after that,|that day,|after breakfast,]"
        return f"[one {self.time},|one day,|one {self.weather} {self.time},|on a {self.weather} {self.time},]"

    def meet_friend(self):
        """Introduces {f}; returns nothing, the next sentence may speak of {f} by name."""
        f = self.f
        if f.name == f"the {f.kind}":
            self.say(f"[just then|at that moment], a {f.kind} came [by|along|down the path].")
        else:
            self.say(self.rng.choice((
                f"[just then|at that moment], {{h.his}} friend {{f}} came [by|along|down the path]. {{f.He}} was a {f.kind}.",
                f"there {{h.he}} met {{f}}, a [little|young|friendly] {f.kind}.",
                f"then a {f.kind} [named|called] {{f}} came [by|along].")))
        if self.chance(0.3):
            self.ask("Who did {h} meet?||Who came by?", "It was {f}.||{h} met {f}.")

    def end(self, lesson):
        self.para()
        kinds = ["lesson"] * 3 + ["evening"] * 3 + ["plain"] * 2
        kind = self.rng.choice(kinds)
        if kind == "lesson":
            self.say(f"[from that day on, {{h}} [knew|never forgot] that {lesson}.|{{h}} had learned that {lesson}."
                     f"|{{h.He}} thought about it for a long time. {{h.He}} now knew that {lesson}.]")
            self.ask("What did {h} learn?||What is the lesson of the story?", f"{{h}} learned that {lesson}.")
        elif kind == "evening":
            self.say("[that night|that evening|when the stars came out], {h} [went to bed early|fell asleep|lay in bed|curled up]"
                     " [with a smile|feeling warm and happy|and dreamed of the next day|and thought about the day].")
        else:
            self.say("[it was the best day of the whole [summer|year|week].|and they [laughed|talked] about it for a long time.|"
                     "and so the day ended well.|it had been a good day.|everyone was happy [again|].|What a day it had been!]")
        self.maybe("[the end.]", 0.15)
