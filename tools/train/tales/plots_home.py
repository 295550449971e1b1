"""Stories of home and friendship. Every function tells one plot into a Story."""
from . import world
from .world import Noun


def lost_thing(s):
    s.about("a {h.kind} who lost {o.a}", "a lost {o.noun}", "{h.a_kind} and {o.a}", "someone who loses {o.a}")
    s.open()
    s.say("[{h} had {o.a} that {h.he} loved [very much|more than anything].|{h.His} favourite thing was {o.a}. {h.He} took it everywhere.|"
          "{h} owned {o.a}. It was a gift from {m}.]")
    s.ask("What did {h} lose?||What was lost?||What was {h} looking for?", "{h} lost {o.a}.||{H} lost {h.his} {o}.")
    lead = s.weather_line()
    inside = s.chance(0.35)
    spots = s.rng.sample(world.ROOM_SPOTS, 3) if inside else s.p.spots
    place = "at home" if inside else s.p.at
    s.let("at", place)
    s.say(f"{lead} {{h}} was playing {{at}}. [When {{h.he}} wanted to go on, the {{o.noun}} was gone!|Suddenly {{h.he}} saw that the {{o.noun}} was not there.|"
          "{h.He} looked into {h.his} bag, but there was no {o.noun}.]")
    s.maybe('["Oh no!" {h.he} said. "Where is my {o.noun}?"|"Where can it be?" {h.he} [cried|asked|whispered].|{h.He} felt [very|so] sad.]', 0.9)
    s.para()
    wrong = spots[:s.pick(1, 2)]
    for i, spot in enumerate(wrong):
        s.let("spot", spot)
        found = s.pick("a snail", "some dry leaves", "an old shoe", "a sleepy beetle", "a button", "only dust") if not inside else \
            s.pick("an old sock", "some crumbs", "only dust", "a lost pencil", "a sleepy spider", "a button")
        s.let("thing", found)
        s.say(s.pick("[First|At first]," if i == 0 else "[Then|After that|Next],", "") + " {h.he} looked {spot}. [There was {thing}, but no {o.noun}.|{h.He} found {thing} there, but not the {o.noun}.|It was not there.]")
    helper = s.chance(0.7)
    if helper:
        s.meet_friend()
        s.say('["Why are you sad?" asked {f}. "I lost my {o}," said {h}. "I will help you [look|find it]," said {f}.|'
              '"What are you looking for?" {f} asked. "My {o}," {h} said. "Let us look together!" said {f}.]')
        s.ask("Who helped {h}?", "{f} helped {h}.")
    s.let("spot", spots[-1])
    who = "{f}" if helper and s.chance(0.5) else "{h}"
    s.say(f"[{who} looked {{spot}}, and there it was!|At last, {who} looked {{spot}}. There was the {{o}}!|Then {who} saw something {{spot}}. It was the {{o}}!]")
    s.ask("Where was the {o.noun}?||Where did they find the {o.noun}?" if helper else "Where was the {o.noun}?||Where did {h} find the {o.noun}?",
          "The {o.noun} was {spot}.||It was {spot}.")
    s.para()
    s.say('["Thank you, {f.call}!" said {h}. {h.He} hugged {f.him}.|{h} jumped for joy and thanked {f}.]' if helper else
          "[{h} hugged the {o.noun} and laughed.|{h} was so happy that {h.he} danced.]")
    s.maybe("{h} [tied a ribbon to it|put it into {h.his} bag|held it tight all the way home], so that {h.he} would not lose it again.", 0.5)
    s.end(s.pick("it is good to take care of things", "friends can help you find what is lost", "you should not give up too soon")
          if helper else s.pick("it is good to take care of things", "you should not give up too soon"))


def broken_thing(s):
    s.let("v", Noun(s.pick("vase", "bowl", "lamp", "cup", "plate", "mirror"), s.rng.choice(world.COLOURS)))
    s.about("a {h.kind} who tells the truth", "telling the truth", "a broken {v.noun}", "someone who breaks {v.a}")
    s.open()
    lead = s.weather_line(0.2)
    s.say(f"{lead} {{h}} was [running|jumping|playing with a ball|dancing] in the [kitchen|living room|hall]. [Crash!|Bang!] [{{m}}'s {{v}} fell [down|to the floor] and broke.|"
          "{h.He} bumped into the table, and the {v} of {m} fell down and broke.]")
    s.ask("What broke?||What did {h} break?", "The {v} broke.||{h} broke {v.a}.")
    s.say("{h} was [scared|afraid|worried]. [{h.He} hid the pieces under the [rug|sofa|bed].|Quickly {h.he} pushed the pieces under the [rug|sofa].|{h.He} put the pieces in a bag and hid it.]")
    s.para()
    s.say('[soon|a little later|in the evening], {m} came in and [asked|said], "[Where is my {v.noun}?|Have you seen my {v.noun}?|Do you know where the {v.noun} is?]"')
    lied = s.chance(0.5)
    if lied:
        s.say('"[I do not know|The cat did it|No]," said {h}. But {h.his} [face turned red|tummy hurt|heart felt heavy]. [{h.He} could not eat {h.his} dinner.|That night {h.he} could not sleep.] [The lie felt like a stone in {h.his} pocket.|]')
        s.say('[Finally|At last|In the end], {h} went to {m} and [whispered|said], "I broke your {v.noun}. [I am so sorry|I am sorry that I lied]."')
    else:
        s.say('{h} took a deep breath. "I broke it," {h.he} said [with a small voice|and began to cry]. "I am sorry."')
    s.ask("What did {h} say to {m}?||Did {h} tell the truth?", "{h} told the truth and said sorry.||Yes, in the end {h} told the truth." if lied else "{h} told the truth.||{h} said sorry.")
    s.para()
    s.say('{m} was quiet for a moment. Then {m.he} [smiled|hugged {h.him}|took {h.his} hand]. "Thank you for telling [me the truth|me]," {m.he} said. "A {v.noun} is only a {v.noun}. [I am glad that you are not hurt.|You are worth more to me than a {v.noun}.|We can fix it.]"')
    s.maybe("[together they glued the pieces.|the next day they glued the {v.noun} together. It was not perfect, but it was fine.|together they cleaned the floor.]", 0.8)
    s.end(s.pick("telling the truth feels better than a lie", "it is brave to tell the truth", "everyone can make a mistake"))


def baking(s):
    s.let("c", s.pick("a cake", "bread", "a pie", "cookies", "pancakes", "muffins"))
    s.let("need", s.pick("flour", "sugar", "butter", "milk", "salt", "honey"))
    occasion = s.pick("{m}'s birthday", "the {season} party", "{f}", "dinner", "the village feast")
    s.let("for", occasion.format(season=s.pick("summer", "winter"), **s.values))
    s.about("a {h.kind} who bakes {c}", "baking {c}", "a {h.kind} who needs {need}")
    s.open()
    lead = s.weather_line(0.3)
    s.say(f"{lead} {{h}} wanted to [bake|make] {{c}} for {{for}}. {{h.He}} [washed {{h.his}} hands and put on an apron|opened the cupboard and took out a big bowl|read the recipe twice].")
    s.ask("What did {h} want to [bake|make]?", "{h} wanted to make {c}.")
    s.say("But [there was no {need} left|the jar of {need} was empty|something was missing: {h.he} had no {need}]!")
    s.ask("What was missing?||What did {h} need?", "There was no {need}.||{h} needed {need}.")
    s.maybe('"[What now?|Oh dear!|How silly of me!]" said {h}.')
    s.para()
    if s.chance(0.5):
        s.say("[{h} went to the shop|{h} ran to the shop], but [the shop was closed|they had no {need} either]. Then {h.he} thought of {h.his} neighbour, {f}.")
    else:
        s.say("{h} [knocked on the door of|went to] {h.his} neighbour, {f}.")
    s.say('"[Could you give me|Do you have] some {need}?" {h.he} asked. "[Of course|Yes|Sure]!" said {f}. "[But may I help you?|Can I taste it later?|Take as much as you need.|What are you making?]"')
    s.ask("Who gave {h} the {need}?||Where did {h} get the {need}?", "{f} gave {h} some {need}.||{h} got it from {f}.")
    s.say("[So|Soon] they were in the kitchen together. {h} [stirred|mixed the dough], and {f} [counted the eggs|held the bowl|put wood on the fire|greased the pan]. [There was flour on {h.his} nose.|They sang while they worked.|]")
    s.say("[After a while|Half an hour later], the whole house smelled [sweet|warm|wonderful].")
    s.para()
    s.say("[{h} cut the biggest piece for {f}|{h} gave {f} the first piece|They shared it with everyone], and it tasted [wonderful|better than ever|very good].")
    s.end(s.pick("everything tastes better when you share it", "it is all right to ask for help", "good neighbours are a treasure"))


def sharing_food(s):
    s.let("t", Noun(s.rng.choice(world.TREATS), s.pick("big", "sweet", "warm", "tasty", "")))
    s.about("sharing {t.a}", "a {h.kind} who shares {h.his} food", "two friends and {t.a}")
    s.open()
    lead = s.weather_line()
    s.say(f"{lead} {{h}} [sat {{p.at}} with|was walking {{p.at}} with|carried] {{t.a}} [for lunch|in {{h.his}} bag|that {{m}} had made]. [It smelled so good.|{{h.He}} was hungry and happy.|]")
    s.ask("What did {h} have?||What did {h} have to eat?", "{h} had {t.a}.")
    s.meet_friend()
    reason = s.pick("lost {f.his} lunch in the {water}", "had nothing to eat all day", "left {f.his} food at home", "given all {f.his} food to {f.his} little sister")
    s.let("why", reason.format(water=s.pick("mud", "river", "stream"), **s.values))
    s.say("{f} [looked tired and hungry|looked sad|sat down with a sigh]. {f.His} tummy [made a loud noise|rumbled]. {f.He} had {why}.")
    s.ask("Why was {f} hungry?", "{F} had {why}.||Because {f} had {why}.")
    s.para()
    if s.chance(0.5):
        s.say("{h} [held the {t.noun} tight|looked at the {t.noun}]. [It was {h.his} favourite food.|{h.He} wanted to eat it all alone.] But then {h.he} saw {f}'s sad eyes.")
    s.say('[{h} broke the {t.noun} in two. "Here," {h.he} said. "Half for you and half for me."|"Are you hungry?" asked {h}. "Then take half of my {t.noun}."|{h} cut the {t.noun} into two parts and gave the bigger one to {f}.]')
    s.say('["You are so kind!" said {f}.|{f} ate and smiled. "Thank you, {h.call}," {f.he} said.|"That is the best {t.noun} of my life!" said {f}.]')
    s.para()
    if s.chance(0.6):
        gift = s.pick("some berries", "a jar of honey", "a bag of nuts", "a fresh loaf of bread", "a basket of pears")
        s.let("g", gift)
        s.say("[The next day|A week later], there was a knock at the door. It was {f}, with {g}. \"[Now it is my turn|This is for you]!\" {f.he} said.")
        s.ask("What did {f} bring?||What did {f} bring [later|to {h}]?", "{f} brought {g}.")
    else:
        s.say("Then they [played|talked|sat in the sun] together until [the evening|it was dark].")
    s.end(s.pick("sharing makes two people happy", "half a meal with a friend is better than a whole one alone", "kindness comes back"))


def quarrel(s):
    s.about("two friends who fight over {o.a}", "a quarrel", "{h.a_kind} who learns to take turns")
    s.open()
    s.say(f"{{h.He}} had a [good|best] friend, {'a ' + s.f.kind + ' named {f}' if not s.f.name.startswith('the ') else 'a ' + s.f.kind}. [They played together every day.|They did everything together.|]")
    lead = s.weather_line(0.3)
    s.say(f"{lead} they found {{o.a}} {{p.at}}. \"[It is mine|I saw it first]!\" said {{h}}. \"No, [it is mine|I saw it first]!\" {{f}} [shouted|said]. They both pulled [at the {{o.noun}}|and pulled].")
    s.ask("What did they find?||What did they fight about?||What did both friends want?", "It was {o.a}.")
    s.para()
    s.say("[In the end, each went home alone.|{f} ran away and cried.|They were both so angry that they did not speak any more.] {h} [had the {o.noun} now, but it was no fun alone|sat alone and felt bad|looked at the {o.noun}. It did not look so nice any more].")
    s.say('["What is wrong?" asked {m}. {h} told {m.him} everything. "Is {o.a} worth more than a friend?" {m.he} asked.|{m} saw {h.his} sad face and said, "A {o.noun} cannot laugh with you, but a friend can."|{h} thought, "I miss {f}. A friend is better than {o.a}."]')
    s.para()
    s.say('So {h} went to {f}. "I am sorry," {h.he} said. "[You can have it first|We can take turns|You can have it today, and I will have it tomorrow]." {f} [smiled|was glad]. "I am sorry too," {f.he} said.')
    s.ask("How did the quarrel end?||What did {h} do in the end?", "{h} said sorry, and they took turns.||They said sorry to each other.")
    s.say("[From then on, they took turns.|They played with the {o.noun} together until the sun went down.|And so they played again, and the {o.noun} belonged to both of them.]")
    s.end(s.pick("a friend is worth more than any toy", "taking turns is better than fighting", "saying sorry is not so hard"))


def afraid_of_dark(s):
    kind, fix = s.pick(("the dark", "a small lantern"), ("thunder", "a song"), ("the dark cellar", "a candle"), ("storms", "a story"), ("the dark", "a song"))
    s.let("fear", kind), s.let("fix", fix)
    s.about("a {h.kind} who is afraid of {fear}", "being brave", "a {h.kind} and {fix}")
    s.open()
    s.say("[There was only one thing that {h} feared: {fear}.|{h} was afraid of {fear}.|{h} had a secret. {h.He} was afraid of {fear}.]")
    s.ask("What was {h} afraid of?||What did {h} fear?", "{h} was afraid of {fear}.||{h.He} was afraid of {fear}.")
    if "dark" in kind:
        s.say("[Every night|One night|When the sun went down], {h.he} [hid under {h.his} blanket|saw strange shapes on the wall|could not close {h.his} eyes]. [One shape looked like a monster with long arms.|]")
    else:
        s.say("One night, [a big storm came. The wind howled and the windows shook.|there was a flash of light, and then a loud boom.] {h} [hid under the bed|pulled the blanket over {h.his} head].")
    s.para()
    s.say('{m} [heard {h.him} cry|came in and sat down on the bed|opened the door]. "[What is wrong, my dear?|Why are you not asleep?]" {m.he} asked. "I am afraid of {fear}," said {h}.')
    if "lantern" in fix or "candle" in fix:
        s.say('{m} brought {fix}. "[Let us see what is there|Come, we will look together]," {m.he} said. In the light, the monster was only [a coat on a chair|a tree behind the window|an old broom]. {h} [had to laugh|laughed].')
    elif "song" in fix:
        s.say('"[When I was small, I was afraid too|I know that feeling]," said {m}. "[Then I sang|I always sing]. Fear does not like songs." They sang together, first softly and then loudly. Slowly, {h} [stopped shaking|felt better|began to smile].')
    else:
        s.say('{m} sat down and told a story about [a cloud who was too loud|a giant who dropped his pots|two clouds who bumped their heads]. {h} [laughed|listened] and forgot the noise outside.')
    s.ask("What helped {h}?||How did {m} help?", "{Fix} helped {h}.||{m} helped with {fix}.")
    s.para()
    s.say("[The next night, {h} tried it alone, and it worked.|The next time, {h.he} was still a little afraid, but {h.he} knew what to do.|Soon {h.he} was asleep.]")
    s.end(s.pick("being brave means trying even when you are afraid", "things look smaller in the light", "it helps to talk about your fears"))


def learn_skill(s):
    s.let("act", s.pick("swim", "ride a bike", "whistle", "climb the big tree", "skate", "fly a kite", "juggle", "play the flute", "dive", "tie a knot") if not s.h.animal
          else s.pick("swim", "whistle", "climb the big tree", "catch a fish", "dance", "jump over the stream", "sing", "dive"))
    s.about("a {h.kind} who learns to {act}", "learning to {act}", "never giving up")
    s.open()
    s.say("[More than anything, {h} wanted to {act}.|{h} wanted to learn how to {act}.|All {h.his} friends could {act}, but {h} could not.]")
    s.ask("What did {h} want to learn?||What did {h} want to do?", "{h} wanted to {act}.||{h} wanted to learn to {act}.")
    lead = s.weather_line(0.4)
    s.say(f'{lead} {{h.he}} tried for the first time. [It went wrong|It did not work at all], and {{h.he}} [fell on {{h.his}} nose|sat down in the mud|felt silly|almost cried].')
    s.maybe('[Some crows laughed.|"I will never learn it," said {h}.|"It is too hard!" {h.he} cried.]', 0.8)
    s.para()
    s.meet_friend()
    s.say('"[I can show you|I know a trick|I could not do it at first either]," said {f}. "[Go slowly.|Do not be afraid.|Take a deep breath.|Try a little every day.]"')
    days = s.pick("three days", "a whole week", "two weeks", "five days")
    s.let("days", days)
    s.say("They practised for {days}. [On the first day, it was bad. On the second day, it was a little better.|Every day went a bit better than the day before.|{h} fell again and again, but {h.he} always got up.]")
    s.ask("How long did they practise?||How long did {h} practise?", "They practised for {days}.||For {days}.")
    s.say('[Then, one morning, it worked!|And then, suddenly, {h} could do it!|At last it worked.] "[Look at me!|I can do it!|I did it!]" {h} [shouted|cried].')
    s.para()
    s.say("[{f} clapped.|{f} was as happy as {h}.|{m} came to watch and was very proud.] [{h} did it again and again until it was dark.|{h} could not stop smiling.]")
    s.end(s.pick("practice makes hard things easy", "you must fall a few times before you can do something well", "a good friend makes learning easy"))


def sick_friend(s):
    s.let("s", s.pick("warm soup", "hot tea with honey", "fresh berries", "chicken soup", "a warm blanket", "a funny book"))
    s.about("a sick friend", "a {h.kind} who visits a friend", "a {h.kind} who brings {s}")
    s.open()
    s.say("{h} and {f} [met every morning {p.at}|always played together {p.at}|went to the {p.noun} every day]. But one day, {f} did not come.")
    s.say("{h} waited [and waited|for an hour|until noon]. [Then {h.he} got worried.|\"Something must be wrong,\" {h.he} thought.] So {h.he} went to {f}'s home. {f} was in bed with [a red nose|a hot head|a bad cold|a sore throat]. \"[I am sick|I cannot come out and play],\" {f} said [with a weak voice|and coughed].")
    s.ask("Why did {f} not come?||What was wrong with {f}?", "{f} was sick.||{F} was sick and had to stay in bed.")
    s.para()
    s.say("{h} [ran home|hurried home|thought for a moment and ran home]. [{m} helped {h.him}.|] {h.He} came back with {s} and [a flower|a picture that {h.he} had drawn|a little bell|{h.his} best pillow].")
    s.ask("What did {h} bring?", "{h} brought {s}.||{H} brought {f} {s}.")
    s.say("{h} [sat by the bed and told stories|stayed all afternoon|read a book to {f.him}|sang a silly song]. {f} [laughed so much that {f.he} forgot to cough|fell asleep with a smile|felt a little better].")
    s.para()
    s.say("[After three days|A few days later|The next week], {f} was well again. \"[Your visit was better than any medicine|You made me well]!\" {f.he} said.")
    s.end(s.pick("a visit from a friend is good medicine", "small things can make someone happy", "friends take care of each other"))


def messy_room(s):
    s.about("a messy room", "a {h.kind} who does not like to clean up", "finding {o.a}")
    s.open()
    s.say("{h} did not like to clean up. [Socks lay on the lamp, and books lay under the bed.|There were toys on the floor, crumbs in the bed, and socks everywhere.|In {h.his} room, you could not see the floor any more.]")
    s.say('"[Please clean your room|You should clean up]," said {m}. "[Later|Tomorrow|Not now]," said {h}.')
    s.para()
    s.let("a", s.pick(*world.ROOM_SPOTS[:4])), s.let("b", s.pick(*world.ROOM_SPOTS[4:]))
    s.say("Then {h} wanted to [show|give] {f} {h.his} {o}. But where was it? {h.He} looked {a} and {b}. It was not there.")
    s.ask("What was {h} looking for?||What could {h} not find?", "{h} was looking for {h.his} {o}.")
    s.say("There was only one way: {h.he} had to clean up. [First {h.he} put the books on the shelf.|First {h.he} picked up the socks.] [Then {h.he} put the toys into the box.|Then {h.he} swept the floor.] ")
    s.let("last", s.pick("Under the last sock", "Behind the last book", "At the bottom of the pile", "Under an old blanket"))
    s.say("{last}, there was the {o}!")
    s.let("where", s.values["last"][0].lower() + s.values["last"][1:])
    s.ask("Where was the {o.noun}?", "It was {where}.")
    s.para()
    s.say("[{f} came, and now there was room to play on the floor.|\"How nice it is here!\" said {f}.|{m} came in and rubbed {m.his} eyes. \"Is this really your room?\" {m.he} asked.] [{h} laughed.|{h} was proud.]")
    s.end(s.pick("it is easier to find things in a clean room", "cleaning up can bring a surprise", "it is better to do a chore at once"))


def handmade_gift(s):
    s.let("g", s.pick("a necklace of nut shells", "a picture of the two of them", "a crown of flowers", "a little wooden bird", "a warm scarf", "a song", "a paper star", "a basket made of grass"))
    s.about("a birthday gift", "a {h.kind} who makes {g}", "a birthday without money")
    s.open()
    s.say("Tomorrow was the birthday of {h.his} [best|good|] friend {f}, [and {h} had no gift|but {h} had nothing to give]. {h.He} counted {h.his} coins. [There were only two.|There was only one.|{h.His} pocket was empty.]")
    s.ask("Whose birthday was it?", "It was {f}'s birthday.")
    s.say("{h} went to the [shop|market]. [Everything cost too much.|The {o} in the window cost ten coins.] [Slowly {h.he} walked home.|{h.He} went out again with a sad face.]")
    s.para()
    s.say('"[What can I do|What can I give {f}]?" {h.he} asked {m}. "[The best gifts are made by hand|Give something that only you can give]," said {m}. {h} [thought and thought|thought for a long time]. Then {h.he} had an idea.')
    s.say("[All evening|Until late at night|The whole afternoon], {h} [worked|worked in secret]. {h.He} made {g}.")
    s.ask("What did {h} make?||What was the gift?||What did {h} give to {f}?", "{h} made {g}.||It was {g}.")
    s.para()
    s.say("The next day, [there were many big gifts on {f}'s table|everyone brought gifts]. {h} [felt shy|was nervous]. [But when {f} saw the gift, {f.his} eyes [shone|grew wide].|But {f} opened {h.his} gift first.] \"[This is the best gift of all|Nobody has ever made something for me]!\" {f.he} said.")
    s.end(s.pick("a gift from the heart is worth more than money", "the best gifts are made with love", "you do not need money to make a friend happy"))


def new_friend(s):
    s.about("a new friend", "a lonely {f.kind}", "how {h} and {f} became friends", "two new friends")
    s.open()
    lead = s.weather_line()
    s.say(f"{lead} a new family [moved in next door|came to live nearby]. They had a {'child' if not s.f.animal else 'little ' + s.f.kind}{'' if s.f.name.startswith('the ') else ' named {f}'}. {{f}} [stood alone by the fence|sat alone {{p.at}}|did not know anyone] and [looked at {{f.his}} feet|said nothing].")
    s.ask("Who was new?||Who moved in?", "{f} was new.||It was {f}.")
    s.say("[{h} wanted to say hello, but {h.he} did not know how.|\"Why does {f.he} not speak?\" {h} asked. \"Maybe {f.he} is shy,\" said {m}.|The others played without {f.him}, but {h} saw how sad {f.he} was.]")
    s.para()
    s.say('[The next morning|Then], {h} took {h.his} {o} and went over. "[Hello! Do you want to play?|Hi! Shall we play?]" {h.he} said. "[This is my {o}. You can hold it|You can play with my {o}, if you like]."')
    s.ask("What did {h} bring?||What did {h} take with {h.him}?", "{h} brought {h.his} {o}.")
    s.say("{f} looked up and smiled [for the first time|a little]. \"[Yes, please|I would like that],\" {f.he} said. They [built a house of sticks|played hide and seek|drew pictures in the sand|made up a secret song], and [they forgot the time|the time flew by].")
    s.para()
    s.say("[From then on, they met every day.|Now there was always someone waiting at the fence.|When it got dark, they did not want to go home.]")
    s.end(s.pick("one kind word can start a friendship", "it only takes a small step to make a friend", "shy people can be the best friends"))


HOME_PLOTS = [lost_thing, lost_thing, broken_thing, baking, sharing_food, quarrel, afraid_of_dark, learn_skill, sick_friend,
              messy_room, handmade_gift, new_friend]
