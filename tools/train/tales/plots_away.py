"""Stories of journeys, rescues and small adventures. Every function tells one plot into a Story."""
from . import world
from .text import NUMBERS
from .world import Noun


def rescue(s):
    animal, place, tool, way = s.pick(
        ("kitten", "high up in a tree", "a ladder", "climbed up and carried it down"),
        ("duckling", "in a deep hole", "a basket", "let the basket down and pulled it up again"),
        ("bird", "in an old net", "a pair of scissors", "cut the net, knot by knot"),
        ("lamb", "in a thorn bush", "thick gloves", "bent the thorns to the side"),
        ("beetle", "in a puddle", "a leaf", "held out the leaf like a little boat"),
        ("frog", "in an empty bucket", "a long stick", "put the stick into the bucket like a bridge"),
        ("puppy", "behind a locked gate", "an old key", "turned the key, and the gate opened"))
    s.let("hands", "" if s.h.animal else f"with {s.h.his} hands"), s.let("where", "down" if "tree" in place else "out")
    s.let("v", Noun(animal, s.pick("little", "small", "tiny", "young"))), s.let("stuck", place), s.let("tool", tool), s.let("way", way)
    s.about("a {v.noun} in trouble", "a {h.kind} who saves {v.a}", "saving {v.a}", "{h.a_kind} and {v.a}")
    s.open()
    lead = s.weather_line()
    s.say(f"{lead} {{h}} was walking {{p.at}}. [Suddenly|All at once] {{h.he}} heard a [weak|small|sad] [cry|sound|voice]. {{h.He}} [looked around|followed the sound|stopped and listened]. There was {{v.a}}, {{stuck}}. It could not get {{where}}.")
    s.ask("What did {h} hear?||Who was in trouble?||Who needed help?", "It was {v.a}.")
    s.ask("Where was the {v.noun}?", "The {v.noun} was {stuck}.")
    s.say('"[Do not be afraid|Wait, I will help you|Hold on]!" {h.he} [called|said]. {h.He} tried to reach the {v.noun} [{hands}|], but [it was too far away|{h.he} was too small|it did not work].')
    s.para()
    helper = s.chance(0.6)
    if helper:
        s.meet_friend()
        s.say('"[Quick, we need|Please bring me|Please get] {tool}," said {h}. {f} ran [off|home] and came back with {tool}.')
    else:
        s.say("{h} [thought hard|looked around|had an idea]. {h.He} ran [home|back to the {h.home}] and came back with {tool}.")
    s.ask("What did [they|{h}] use to help?||What did {h} need?", "They used {tool}." if helper else "{h} used {tool}.")
    s.say("[Slowly and carefully|Very slowly|With a beating heart], {h.he} {way}. [At last the {v.noun} was free!|The {v.noun} was safe!]")
    s.para()
    s.say("[The {v.noun} shook itself and looked at {h} with big eyes.|The {v.noun} was still shaking, so {h} held it for a while.] [Then it ran back to its mother.|Its mother came and was so happy.|From then on, it followed {h} everywhere.]")
    s.end(s.pick("even small ones can be a big help", "it is good to stop and listen", "a good idea is better than strong arms"))


def planting(s):
    seed, grown, fruit = s.pick(("a sunflower seed", "sunflower", "a flower as big as a plate"), ("an apple seed", "apple tree", "the first red apple"),
                                ("a pumpkin seed", "pumpkin plant", "a pumpkin as round as the moon"), ("a bean", "bean plant", "a hundred green beans"),
                                ("a strawberry seed", "strawberry plant", "three sweet strawberries"))
    s.let("seed", seed), s.let("grown", grown), s.let("fruit", fruit)
    s.weather = "sunny"
    s.about("{seed}", "a {h.kind} who plants {seed}", "waiting", "a garden")
    s.open()
    lead = s.weather_line(0.2)
    s.say(f'{lead} {{m}} gave {{h.him}} {{seed}}. "[It is small now, but it will be big|There is a surprise inside]," {{m.he}} said.')
    s.ask("What did {m} give {h.him}?||What did {h} plant?", "It was {seed}.")
    s.let("spot", s.pick("in the garden", "behind the shed", "in a sunny spot")), s.let("x", "bean" if seed == "a bean" else "seed")
    s.say("{h} dug a [little|small] hole {spot}, put the {x} in, and [covered it with earth|gave it some water].")
    s.para()
    s.say("The next day, {h.he} ran out to look. There was nothing. [On the second day, there was nothing either.|The day after that, there was still nothing.] \"[Nothing happens|It must be broken|It sleeps too long]!\" said {h}.")
    s.say('"[Be patient|Give it time|Wait a little longer]," said {m}. "[Good things need time|Every day it needs water and sun, and then time]."')
    s.say("So {h} watered it every morning. [It rained, and the sun came out again.|One week went by, and then another one.] [Then, one day,|Finally,] there was a [tiny green leaf|little green tip]!")
    s.para()
    s.say("The leaf became a {grown}. [It grew and grew.|It grew taller than {h}.|The bees came to visit.] And in the [autumn|late summer], {h} found {fruit}.")
    s.ask("What grew from it?||What grew?", "A {grown} grew.||It became a {grown}.")
    s.say("[{h} shared it with {f}.|{h} showed it to everyone.|{h} was so proud.] [\"It was worth the wait,\" {h.he} said.|]")
    s.end(s.pick("good things need time", "you must be patient", "a small seed can become something big"))


def lost_way(s):
    s.let("chase", s.pick("a blue butterfly", "a white feather in the wind", "a shiny beetle", "the sound of a bell", "a rainbow", "a little grey bird"))
    s.about("a {h.kind} who gets lost", "getting lost in the forest", "the way home", "{h.a_kind} and {chase}")
    s.open()
    lead = s.weather_line(0.4)
    s.say(f'{lead} {{h}} [saw|noticed] {{chase}} and followed it. {{h.He}} went over the [hill|field] and [through the bushes|past the old mill], deeper and deeper into the forest.' if "sound" not in s.values["chase"]
          else f"{lead} {{h}} heard {{chase}} and followed it. {{h.He}} went over the hill and into the forest.")
    s.ask("What did {h} follow?", "{h} followed {chase}.||{h.He} followed {chase}.")
    s.say("[When {h.he} turned around, every tree looked the same.|Suddenly {h.he} stopped. Where was the path?|Then it was gone, and so was the path.] {h} was lost. [It was getting dark.|The wind was cold.|An owl hooted.]")
    s.maybe('["Mama! Papa!" {h.he} called, but nobody answered.|{h.He} sat down and cried a little.|"I must not be afraid," {h.he} said to {h.himself}.]', 0.9)
    s.para()
    guide = s.cast.beast(s.f.pronoun)
    s.let("g", guide)
    s.say((f"[After a while|Then] a {guide.kind} [came out of the bushes|sat on the path]." if guide.name.startswith("the ") else
           f"[After a while|Then] a {guide.kind} [named|called] {{g}} [came out of the bushes|sat on the path].")
          + ' "[Are you lost?|Why are you here so late?]" asked {g}. "Yes," said {h}. "[I want to go home|I cannot find the way home]."')
    s.ask("Who helped {h}?||Who showed {h} the way?", f"A {guide.kind} helped {{h.him}}.||The {guide.kind} showed {{h.him}} the way.")
    s.let("sign", s.pick("the stream", "the brightest star", "the white stones", "the smell of smoke", "the yellow flowers", "the old wall"))
    s.say('"[Follow {sign}|You only have to follow {sign}]," said {g}. "[It leads to your home|Then you will see your home]. I will come with you [for a while|to the edge of the forest]."')
    s.ask("What did they follow?||How did {h} find the way home?", "They followed {sign}.||{h} followed {sign}.")
    s.say("They walked side by side, and {g} told {h.him} [funny stories|the names of the stars|about the forest]. [Soon|At last] there was a light. It was {h}'s home!")
    s.para()
    s.say('{m} [ran out of the door|stood at the door with a lantern] and [hugged|held] {h.him}. "[I was so worried|I looked for you everywhere]," {m.he} said. {h} [turned around to say thank you|wanted to thank {g}], but {g} was already gone.')
    s.end(s.pick("it is wise to look at the way you go", "you should not go too far alone", "a stranger can become a friend"))


def trade_chain(s):
    things = s.rng.sample(["a fish", "a feather", "a bag of nuts", "a jar of honey", "a rope", "a warm hat", "a wooden spoon", "a basket of pears",
                           "a bell", "a blue ribbon", "a pot of soup", "a lantern"], 3)
    folk = [s.cast.beast() for _ in range(3)]
    for i in range(3):
        s.let(f"t{i}", things[i]), s.let(f"k{i}", f"the {folk[i].kind}")
        s.let(f"n{i}", s.pick("I am so hungry", "I have wanted one for years", "my old one is gone", "my children would love it"))
    s.about("trading", "a {h.kind} who trades {t0} for {o.a}", "{t0}, {t1} and {t2}", "clever trades")
    s.open()
    s.say("{h} wanted {o.a}, but {h.he} had only {t0}. \"[Maybe someone will trade with me|I will go and trade],\" {h.he} [said|thought] and [went off|set out].")
    s.ask("What did {h} want?", "{h} wanted {o.a}.")
    s.ask("What did {h} have at first?||What did {h} have at the beginning?", "{h} had {t0}.||At first {h.he} had {t0}.")
    s.para()
    where = s.rng.sample(["by the river", "at the mill", "under the oak tree", "on the bridge", "at the market"], 3)
    for i in range(3):
        gets = "{t%d}" % (i + 1) if i < 2 else "{o.a}"
        s.say("[%s], %s, {h.he} met %s. " % ("First|At first" if i == 0 else "Then|After that" if i == 1 else "At last|Finally", where[i], f"a {folk[i].kind}")
              + '"[Is that|Oh, is that] {t%d}?" asked {k%d}. "{N%d}! I will give you %s for it." ' % (i, i, i, gets)
              + "[So they traded.|{h} was glad to trade.|That was a good trade.]")
        s.say("Now {h} had %s." % gets if i < 2 else "And so {h} had {o.a}!")
        s.ask("What did {k%d} give {h}?||What did {h} get from {k%d}?" % (i, i), "{K%d} gave {h.him} %s." % (i, gets))
        s.para()
    s.say("[{h} danced all the way home.|{h} went home with the {o} and a big smile.] [\"All that from {t0}!\" {h.he} said.|And three animals were happy, too.]")
    s.end(s.pick("one thing can lead to another", "a fair trade makes both sides happy", "it is worth asking"))


def night_noise(s):
    s.let("noise", s.pick("a scratching sound", "a strange knock", "a soft whistle", "a rustle in the leaves", "a loud bump", "a sad howl"))
    cause, joke = s.pick(("a hedgehog that was looking for food", "It was the size of an apple"), ("a branch that beat against the window", "The tree just wanted to say hello"),
                         ("a kitten that wanted to come in", "It was wet and cold"), ("a mouse with a nut", "The nut was bigger than the mouse"),
                         ("an old door that moved in the wind", "It needed a drop of oil"), ("an owl with her three young ones", "They were learning to hoot"))
    s.let("cause", cause), s.let("joke", joke)
    s.about("a strange noise", "a strange noise in the night", "a brave {h.kind}")
    s.open()
    s.say("One night, {h} woke up. There was {noise}! [It came from outside.|There it was again.] {h} [held {h.his} breath|sat up in bed|pulled the blanket up to {h.his} nose].")
    s.ask("What did {h} hear?||What woke {h} up?", "{h} heard {noise}.||It was {noise}.")
    s.maybe('"[Is it a ghost?|Is it a thief?|Maybe it is a dragon!]" {h.he} [thought|whispered].', 0.9)
    s.say("{h.He} [woke up {f}, who was staying for the night|called {f}, who slept in the other bed]. \"[Let us go and look|We must find out what it is],\" said {h}. \"[Together we are brave|You go first]!\" said {f}.")
    s.para()
    s.say("They took a lantern and [tiptoed to the door|went down the stairs|crept outside]. [Their hearts beat fast.|The floor creaked.|The moon went behind a cloud.] Then they [lifted the lantern|looked around the corner] and saw {cause}. {joke}.")
    s.ask("What was the noise?||What made the noise?||What did they find?", "It was {cause}.")
    s.say("{h} and {f} looked at each other and [laughed until their bellies hurt|began to laugh].")
    s.maybe("[They made hot milk before they went back to bed.|They told {m} about it at breakfast.]")
    s.end(s.pick("most monsters are small when you look at them", "it is better to look than to be afraid", "two are braver than one"))


def hide_and_seek(s):
    spots = s.p.spots
    s.let("s0", spots[0]), s.let("s1", spots[1]), s.let("s2", spots[2])
    n = s.pick(10, 20, 12, 15)
    s.let("n", NUMBERS[n])
    third = s.cast.beast(s.f.pronoun) if s.f.animal else s.cast.child(s.f.pronoun)
    s.let("g", third)
    s.about("hide and seek", "playing hide and seek {p.at}", "{h}, {f} and {g}")
    s.open()
    lead = s.weather_line(0.4)
    s.say(f"{lead} {{h}} played hide and seek with {{f}} and {{g}} {{p.at}}. {{h}} [closed {{h.his}} eyes|stood by a tree] and counted to {{n}}. \"[I am coming!|Ready or not, here I come!]\" {{h.he}} called.")
    s.ask("What did they play?||What game did they play?", "They played hide and seek.")
    s.ask("Where did they play?", "They played {p.at}.")
    s.ask("How far did {h} count?", "{h} counted to {n}.||To {n}.")
    s.para()
    s.say("{h} looked {s0}. [Nobody was there.|It was empty.] Then {h.he} [saw a foot|heard a giggle|saw something move] {s1}. \"[Found you|I see you], {f.call}!\" {h.he} shouted. {f} [came out|laughed and came out].")
    s.ask("Where was {f}?||Where did {f} hide?||Where did {h} find {f}?", "{f} was {s1}.||{f} hid {s1}.")
    s.say("But where was {g}? They looked [everywhere|high and low]. [They called and called.|{f} even looked up into the trees.] \"[Maybe {g} went home|{g} is too good at this],\" said {f}.")
    s.para()
    s.say("Then they heard a [soft snore|little snore]. It came from somewhere {s2}. There lay {g}, fast asleep! {g.He} had waited so long that {g.he} had [fallen asleep|closed {g.his} eyes].")
    s.ask("Where was {g}?||Where did {g} hide?", "{g} was {s2}.")
    s.ask("What was {g} doing?", "{g} was asleep.||{g} was sleeping.")
    s.say('"[Did I win?|Is it over?|Is it morning?]" asked {g}. [They all laughed.|{h} laughed. "Yes, you won!" {h.he} said.]')
    s.end(s.pick("games are best with friends", "the best hiding place is a quiet one", "waiting can make you sleepy"))


def treasure(s):
    c = s.rng.sample(["the big oak tree", "the old well", "the stone bridge", "the red barn", "the windmill", "the round pond", "the white rock"], 3)
    for i in range(3):
        s.let(f"c{i}", c[i])
    steps = s.rng.randint(3, 12)
    s.let("steps", NUMBERS[steps])
    s.let("t", s.pick("a box full of old coins", "a jar of marbles", "a tin full of cookies", "a box with letters and a silver ring", "a bottle with a note inside", "a chest full of toys"))
    s.about("a treasure", "a treasure map", "a {h.kind} who finds a map", "a hunt for treasure")
    s.open()
    lead = s.weather_line(0.3)
    s.say(f"{lead} {{h}} found an old map [in the attic|in a book|inside a bottle|under a loose board]. There was a red cross on it. {{h.He}} [ran to|showed it to] {{f}}. \"[A treasure map!|We must find it!]\" [cried|said] {{f}}.")
    s.ask("What did {h} find [first|at the beginning]?||What was on the map?", "{h} found an old map with a red cross." )
    s.para()
    s.say("[First|The map said that first] they had to go to {c0}. [There they found an arrow on the ground.|There was an arrow cut into the wood.] It pointed to {c1}. [So they ran to {c1}.|So they went there, too.]")
    s.ask("Where did they go first?", "First they went to {c0}.")
    s.say("At {c1}, [they found a note|there was a note under a stone]. \"Walk {steps} steps from {c2},\" it said. [They counted aloud.|{f} counted, and {h} walked.] After {steps} steps, they [began to dig|started to dig].")
    s.ask("How many steps did they walk?||How many steps was it?", "They walked {steps} steps.||{Steps}.")
    s.maybe("[They dug and dug.|Their hands got dirty.|A worm looked out and was not happy.]")
    s.para()
    s.say("[Clunk!|Knock!] There was something hard. It was {t}! [They could not believe it.|\"We found it!\" they shouted.]")
    s.ask("What was the treasure?||What did they find [in the end|]?", "It was {t}.||They found {t}.")
    s.say("They [shared everything|shared the treasure]: half for {h} and half for {f}. [And then they made a new map, to hide a treasure for someone else.|But the best thing was the adventure.]" if "note" not in s.values["t"] else
          "The note said, \"The real treasure is the friend who dug with you.\" {h} and {f} [laughed|looked at each other and smiled].")
    s.end(s.pick("an adventure is best with a friend", "the way can be as nice as the goal", "a sharp eye finds many things"))


def race(s):
    win = s.pick("slow", "stop")
    s.let("price", s.pick("a golden cup", "a big cake", "a basket of fruit", "a blue ribbon"))
    s.let("goal", s.pick("the old oak tree", "the mill", "the bridge", "the top of the hill", "the big rock"))
    s.about("a race", "a race between {h} and {f}", "a race to {goal}")
    s.open()
    s.say("There was a big race that day. [Everyone had to run|The way went] to {goal}. The winner would get {price}. [{f} was very fast and told everyone about it.|\"I will win,\" said {f}. \"I am the fastest.\"] {h} was not so fast, but {h.he} wanted to try.")
    s.ask("What could the winner get?||What was the prize?", "The prize was {price}.||The winner would get {price}.")
    s.ask("How far was the race?||Where did the race end?", "The race went to {goal}.||It ended at {goal}.")
    s.say("[\"Ready, set, go!\" said {m}.|A whistle blew, and off they went!] {f} ran like the wind. {h} was soon far behind.")
    s.para()
    if win == "slow":
        s.say("{f} looked back and laughed. \"[I have so much time|I can take a nap],\" {f.he} said and [sat down under a tree|lay down in the grass]. Soon {f.he} was asleep. But {h} did not stop. Step by step, {h.he} went on, past the tree, [up the path|over the field], and [to the goal|on to {goal}].")
        s.say("When {f} woke up, it was too late. {h} had won {price}!")
        s.ask("Who won the race?||Who won?", "{h} won the race.||{h} won, because {f} fell asleep.")
        s.ask("Why did {f} lose?", "{f} fell asleep.||Because {f.he} fell asleep.")
        s.say("[{f} was ashamed, but {h} shared the prize with {f.him}.|\"Well done,\" said {f}, and {f.he} meant it.]" if "cake" in s.values["price"] or "fruit" in s.values["price"] else "\"Well done,\" said {f}, and {f.he} meant it.")
        s.end(s.pick("slow and steady can win", "it is foolish to be too proud", "you should not stop before the end"))
    else:
        s.say("Halfway there, {f} [slipped on a wet stone|fell over a root] and hurt {f.his} foot. [The others ran on.|Nobody stopped.] Only {h} stopped. \"[Hold on to me|Lean on me],\" {h.he} said. [Slowly they went on together.|Together they walked the rest of the way.]")
        s.say("They were the last ones to arrive. But [everyone clapped|people clapped the loudest for them]. {m} gave [both of them|them] {price}. \"[This is for the best heart|Being kind is also winning],\" {m.he} said.")
        s.ask("Why did {h} stop?", "{h} stopped to help {f}.||Because {f} was hurt.")
        s.ask("What happened to {f}?", "{F} fell and hurt {f.his} foot.")
        s.end(s.pick("helping is better than winning", "a friend is more important than a prize"))


def market(s):
    have = s.rng.randint(5, 12)
    first = s.rng.randint(1, have - 3)
    second = s.rng.randint(1, have - first - 1)
    left = have - first - second
    a, b = s.rng.sample(["a loaf of bread", "a red apple", "a jar of honey", "a bunch of flowers", "a piece of cheese", "a paper kite", "a bag of nuts", "a wooden whistle"], 2)
    for k, v in (("have", have), ("x", first), ("y", second), ("left", left)):
        s.let(k, NUMBERS[v] + (" coin" if v == 1 else " coins"))
    s.let("a", a), s.let("b", b)
    s.about("the market", "a day at the market", "a {h.kind} who goes shopping")
    s.open()
    lead = s.weather_line(0.4)
    s.say(f"{lead} {{h}} went to the market with {{have}} in {{h.his}} [pocket|bag]. [There was so much to see!|It was loud and full of colours.|It smelled of bread and flowers.]")
    s.ask("How many coins did {h} have?||How many coins did {h} have at first?", "{h} had {have}.||{Have}.")
    s.say("First {h.he} bought {a} for {x}. Then {h.he} bought {b} for {y}. Now {h.he} had {left} left.")
    s.ask("What did {h} buy first?", "First {h} bought {a}.")
    s.ask("What did {h} buy?", "{h} bought {a} and {b}.")
    s.ask("How many coins were left?||How many coins did {h} have left?", "{h} had {left} left.||{Left} were left." if left > 1 else "{h} had {left} left.")
    s.para()
    s.let("who", s.pick("man", "woman"))
    s.say("[At the gate|At the corner|Next to the well] sat an old {who} [who played the flute|with a small dog|who looked cold]. {h} [stopped and listened|thought for a moment]. Then {h.he} [put {left} into the old hat|gave away {left}].")
    s.ask("Who got the last coins?||What did {h} do with the last coins?" if left > 1 else "What did {h} do with the last coin?", "{h} gave {left} away.")
    s.say('"[Thank you, my child|You have a good heart]," said a soft voice. {h} went home [with an empty pocket and a full heart|and sang all the way|and gave {b} to {m}].' )
    s.end(s.pick("giving can feel better than having", "you do not need many coins to be happy", "a small gift can be big for someone else"))


def rainy_day(s):
    s.let("plan", s.pick("fly a kite", "have a picnic", "play ball", "climb trees", "go to the lake", "pick berries"))
    s.let("indoor", s.pick("a castle out of chairs and blankets", "a ship out of a big box", "a puppet theatre", "a tower as high as the table", "a tent under the table"))
    s.about("a rainy day", "rain", "two friends and {indoor}")
    s.open()
    s.say("{h} and {f} wanted to {plan}. They had [waited for it all week|planned it for days]. But when the day came, it rained [and rained|cats and dogs|without a break].")
    s.ask("What did they want to do?", "They wanted to {plan}.")
    s.ask("Why could they not {plan}?", "Because it rained.||It was raining.")
    s.ask("What was the weather like?", "It was raining.")
    s.say('["It is not fair!" said {h}.|{h} pressed {h.his} nose against the window.|{h} looked at the grey sky and sighed.] ["What now?" asked {f}.|]')
    s.para()
    s.let("ruler", "queen" if s.h.pronoun == "she" else "king")
    s.say('"[Then we will have fun inside|I have an idea]," said {f}. They built {indoor}. {h} was [the captain|the {ruler}] and {f} was [the cook|a dragon|the guard].')
    s.ask("What did they build?||What did they make?", "They built {indoor}.")
    s.maybe("[{m} brought them warm milk.|They ate apples and told stories.|They laughed so loudly that {m} came to look.]", 0.8)
    s.say("They did not even notice when the rain stopped. [\"Look!\" cried {f}.|Then {h} looked out.] There was a rainbow [over the hills|in the sky|over the roofs]. They ran out and [jumped into the puddles|danced in the wet grass].")
    s.ask("What was in the sky?||What did they see in the end?", "There was a rainbow.||They saw a rainbow.")
    s.end(s.pick("a rainy day can be a good day", "a good idea can save the day", "plans can change and still be fun"))


def greedy(s):
    s.let("g", s.pick("nuts", "berries", "apples", "cherries", "plums", "pears"))
    s.about("a greedy {h.kind}", "a {h.kind} who wanted too much", "too many {g}")
    s.open()
    lead = s.weather_line(0.4)
    s.say(f'{lead} {{h}} found a place full of {{g}}. "[All of this is mine|I will take them all]!" {{h.he}} said. {{h.He}} filled {{h.his}} [bag|basket] to the top, and then {{h.he}} put even more on it.')
    s.ask("What did {h} find?", "{h} found many {g}.||{h} found a place full of {g}.")
    s.meet_friend()
    s.say('"[May I have some {g}?|Could I have a few?]" asked {f}. "[No, they are all mine|No! I found them]!" said {h} [and held the bag tight|].' if s.chance(0.8) else '"May I have some?" asked {f}. "No!" said {h}.')
    s.ask("What did {f} want?||What did {f} ask for?", "{f} wanted some {g}.")
    s.para()
    s.say("{h} pulled and pulled, but it was too heavy. [Step by step {h.he} went up the hill.|Halfway home, {h.he} had to rest.] Then [there was a loud rip|it went rip]! There was a big hole, and all the {g} rolled [into the river|down the hill into the stream]. [Not one was left.|In a moment, everything was gone.]")
    s.ask("What happened to the {g}?||Where did the {g} go?", "The {g} rolled into the water.||They were all gone.")
    s.para()
    s.say("{h} sat down and cried. Then {f} came back. [{f.He} had found a few {g} on the ground.|{f.He} had picked a few {g} for {f.himself}.] \"[Here|Take these],\" {f.he} said. \"[They are enough for both of us|We can share them].\" {h} [was ashamed|turned red]. \"You are kind, and I was greedy,\" {h.he} said. \"[Thank you|I am sorry].\"")
    s.end(s.pick("those who want everything may end up with nothing", "a little is enough when you share it", "being greedy does not make you happy"))


def building(s):
    what, parts, trouble, fix = s.pick(
        ("a kite", ["paper", "two sticks", "a long string"], "the paper tore in the wind", "glued a patch on it"),
        ("a raft", ["six logs", "a strong rope", "a pole"], "one log came loose", "made a better knot"),
        ("a birdhouse", ["wood", "nails", "a hammer"], "the roof was too small", "made a bigger roof out of bark"),
        ("a snowman", ["a lot of snow", "a carrot", "two black stones"], "the head rolled down the hill", "made a new head, even rounder than the first"),
        ("a tree house", ["boards", "a ladder", "a rope"], "a board broke in the middle", "put two boards on top of each other"),
        ("a swing", ["a board", "a long rope", "a strong branch"], "the rope was too short", "tied two ropes together"))
    s.let("w", Noun(what[2:])), s.let("trouble", trouble), s.let("fix", fix)
    for i, part in enumerate(parts):
        s.let(f"p{i}", part)
    s.about("{w.a}", "building {w.a}", "two friends who build {w.a}")
    s.open()
    if what == "a snowman":
        s.weather = "snowy"
    elif s.weather == "snowy":
        s.weather = "sunny"
    lead = s.weather_line(0.4)
    s.say(f"{lead} {{h}} [had an idea|wanted to build {{w.a}}]. \"[Let us build|We could build] {{w.a}}!\" {{h.he}} said to {{f}}. [\"Yes!\" said {{f}}. \"But what do we need?\"|{{f}} jumped up and down. \"What do we need?\"]")
    s.ask("What did they want to build?||What did they build?", "They built {w.a}.")
    s.say('"[We need|Well, we need] {p0}, {p1} and {p2}," said {h}. [{h} got {p0} and {f} got {p1}. They found {p2} together.|{f} brought {p0}. {h} found {p1} and {p2}.|It took an hour to find it all.]')
    s.ask("What did they need?", "They needed {p0}, {p1} and {p2}.")
    s.para()
    s.say('They worked [all morning|for hours|hard]. [It looked good.|Soon it was almost ready.] But then {trouble}! ["Oh no!" cried {f}. "All that work!"|{f} was close to tears.]')
    s.ask("What went wrong?||What happened?", "{Trouble}.")
    s.say('"[We can fix it|Do not worry|Let us think]," said {h}. They thought for a while, and then they {fix}. [Now it was even better than before.|That did it!|It worked!]')
    s.ask("How did they fix it?||What did they do then?", "They {fix}.")
    s.para()
    ends = {"a kite": "The kite flew so high that it looked like a bird.", "a raft": "They went down the river like two captains.",
            "a birdhouse": "A week later, two blue birds moved in.", "a snowman": "They gave the snowman an old hat, and he looked very proud.",
            "a tree house": "From up there, they could see the whole village.", "a swing": "They went up and down until they could touch the leaves."}
    s.say(ends[what] + " [Everyone came to see it.|{m} came to see it and clapped.|]")
    s.end(s.pick("a mistake is a chance to make it better", "two heads are better than one", "good work takes time"))


def star_wish(s):
    s.let("wish", s.pick("a friend", "snow", "to fly like a bird", "to be big", "to talk to the moon", "a pet", "to see the sea"))
    s.let("for", "" if s.values["wish"].startswith("to ") else "for ")
    s.about("a wish", "a falling star", "a {h.kind} who makes a wish", "the night sky")
    s.open()
    s.say("One clear night, {h} [looked out of the window|lay in the grass and looked up]. [The sky was full of stars.|The moon was round and bright.] Then a star fell! \"[Make a wish|Quick, make a wish],\" said {m}. {h} closed {h.his} eyes and wished {for}{wish}.")
    s.ask("What did {h} wish for?||What was the wish of {h}?", "{h} wished {for}{wish}.")
    s.para()
    w = s.values["wish"]
    if w in ("a friend", "a pet"):
        kind = s.f.kind if w == "a friend" else s.pick("kitten", "puppy", "little bird")
        s.let("c", kind)
        s.say("The next morning, there was a [soft|quiet] knock at the door. Outside stood a {c}. " + ("\"[Hello. I am new here|Hi. I have nobody to play with],\" said the {c}. \"[Will you play with me|Would you like to play]?\"" if w == "a friend" else "It was alone and cold, and it looked at {h} with big eyes."))
        s.say("{h} [could not believe it|opened the door wide]. \"[Come in|I have waited for you]!\" {h.he} said.")
        s.ask("Who stood at the door?||Who knocked at the door?", "It was a {c}.||A {c} stood at the door.")
    elif w == "snow":
        s.say("In the night it grew very cold and quiet. When {h} woke up, the light was strange and bright. {h.He} ran to the window. [The roofs were white!|The whole world was white!] {h.He} put on {h.his} [scarf|mittens] and ran out to call {f}. They [built a snowman|went down the hill on a sled] and laughed all day.")
        s.ask("What did {h} see in the morning?", "{h} saw snow.||There was snow everywhere.")
    else:
        s.say("That night, {h} had a dream. " + {"to fly like a bird": '{h.He} had wings, and the wind carried {h.him} over the forest and the river. A crow said, "[You fly well]!"',
              "to be big": "{h.He} was as big as a mountain. {h.He} could drink a lake and touch the clouds. But nobody could play with {h.him}, and no bed was big enough.",
              "to talk to the moon": "The moon came down and sat on the roof. \"[It is lonely up there|I see everything from up there],\" it said. They talked until the sun came up.",
              "to see the sea": "{h.He} stood on a beach, and the water was blue and without an end. A whale came and sang a song."}[w])
        s.say("When {h} woke up, {m} was sitting on the bed. {h} told {m.him} all about it. \"[Some wishes come true in our dreams|That was a fine dream],\" said {m}.")
    s.end(s.pick("wishes can come true in strange ways", "it is good to dream", "you should be careful what you wish for"))


AWAY_PLOTS = [rescue, rescue, planting, lost_way, trade_chain, night_noise, hide_and_seek, treasure, race, market, rainy_day, greedy,
              building, star_wish]
