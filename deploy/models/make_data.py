#!/usr/bin/env python3
"""Everything tessera-demo has ever read comes out of this file, facts.txt and stories.txt.

    python3 make_data.py                 write eval.jsonl, the held-out evaluation set
    python3 make_data.py --show 20       print some training conversations

Every ability has two lists of phrasings: TRAIN and EVAL. Training draws from the first only, the evaluation
from the second only. The facts, the numbers and the words are shared; the way to ask for them is not.
"""

import argparse
import json
import os
import random

from chat import call_text, dumps, render

SEED = 20261121
HERE = os.path.dirname(os.path.abspath(__file__))

# --- what there is to know ------------------------------------------------------------------------

COUNTRIES = """Afghanistan:Kabul Albania:Tirana Algeria:Algiers Angola:Luanda Argentina:Buenos_Aires Armenia:Yerevan
Australia:Canberra Austria:Vienna Azerbaijan:Baku the_Bahamas:Nassau Bahrain:Manama Bangladesh:Dhaka
Barbados:Bridgetown Belarus:Minsk Belgium:Brussels Belize:Belmopan Bhutan:Thimphu Bolivia:Sucre Bosnia:Sarajevo
Botswana:Gaborone Brazil:Brasília Bulgaria:Sofia Cambodia:Phnom_Penh Cameroon:Yaoundé Canada:Ottawa
Chad:N'Djamena Chile:Santiago China:Beijing Colombia:Bogotá the_Congo:Brazzaville Costa_Rica:San_José
Croatia:Zagreb Cuba:Havana Cyprus:Nicosia the_Czech_Republic:Prague Denmark:Copenhagen Djibouti:Djibouti
Ecuador:Quito Egypt:Cairo El_Salvador:San_Salvador Eritrea:Asmara Estonia:Tallinn Ethiopia:Addis_Ababa Fiji:Suva
Finland:Helsinki France:Paris Gabon:Libreville the_Gambia:Banjul Georgia:Tbilisi Germany:Berlin Ghana:Accra
Greece:Athens Guatemala:Guatemala_City Guinea:Conakry Guyana:Georgetown Haiti:Port-au-Prince Honduras:Tegucigalpa
Hungary:Budapest Iceland:Reykjavík India:New_Delhi Indonesia:Jakarta Iran:Tehran Iraq:Baghdad Ireland:Dublin
Italy:Rome the_Ivory_Coast:Yamoussoukro Jamaica:Kingston Japan:Tokyo Jordan:Amman Kazakhstan:Astana
Kenya:Nairobi Kuwait:Kuwait_City Kyrgyzstan:Bishkek Laos:Vientiane Latvia:Riga Lebanon:Beirut Lesotho:Maseru
Liberia:Monrovia Libya:Tripoli Liechtenstein:Vaduz Lithuania:Vilnius Luxembourg:Luxembourg
Madagascar:Antananarivo Malawi:Lilongwe Malaysia:Kuala_Lumpur the_Maldives:Malé Mali:Bamako Malta:Valletta
Mauritania:Nouakchott Mauritius:Port_Louis Mexico:Mexico_City Moldova:Chișinău Monaco:Monaco Mongolia:Ulaanbaatar
Montenegro:Podgorica Morocco:Rabat Mozambique:Maputo Myanmar:Naypyidaw Namibia:Windhoek Nepal:Kathmandu
the_Netherlands:Amsterdam New_Zealand:Wellington Nicaragua:Managua Niger:Niamey Nigeria:Abuja
North_Korea:Pyongyang North_Macedonia:Skopje Norway:Oslo Oman:Muscat Pakistan:Islamabad Panama:Panama_City
Papua_New_Guinea:Port_Moresby Paraguay:Asunción Peru:Lima the_Philippines:Manila Poland:Warsaw Portugal:Lisbon
Qatar:Doha Romania:Bucharest Russia:Moscow Rwanda:Kigali Samoa:Apia Saudi_Arabia:Riyadh Senegal:Dakar
Serbia:Belgrade Sierra_Leone:Freetown Singapore:Singapore Slovakia:Bratislava Slovenia:Ljubljana Somalia:Mogadishu
South_Africa:Pretoria South_Korea:Seoul Spain:Madrid Sudan:Khartoum Suriname:Paramaribo Sweden:Stockholm
Switzerland:Bern Syria:Damascus Taiwan:Taipei Tajikistan:Dushanbe Tanzania:Dodoma Thailand:Bangkok Togo:Lomé
Tonga:Nuku'alofa Tunisia:Tunis Turkey:Ankara Turkmenistan:Ashgabat Uganda:Kampala Ukraine:Kyiv
the_United_Arab_Emirates:Abu_Dhabi the_United_Kingdom:London the_United_States:Washington Uruguay:Montevideo
Uzbekistan:Tashkent Vanuatu:Port_Vila Venezuela:Caracas Vietnam:Hanoi Yemen:Sana'a Zambia:Lusaka
Zimbabwe:Harare"""
CAPITAL = {c.replace("_", " "): k.replace("_", " ") for c, k in (x.split(":") for x in COUNTRIES.split())}
COUNTRY = {k: c for c, k in CAPITAL.items()}
CITIES = list(CAPITAL.values()) + ["New York", "Hamburg", "Munich", "Milan", "Sydney", "Toronto", "Chicago",
                                   "Barcelona", "Lyon", "Zurich", "Geneva", "Mumbai", "Shanghai", "Kyoto", "Boston"]

WORDS = """apple arrow autumn baker ball banana barrel basket beach bear beetle bell bench berry bicycle bird blanket
boat book bottle bread bridge broom brother brush bucket butter button cabin camel candle carpet carrot castle cat
cello chair cheese cherry circle clock cloud coat coffee comet copper corner cotton cradle crayon crow cup curtain
daisy dance deer desert desk dog dolphin donkey door dragon dream drum duck eagle earth echo elbow engine evening
family farmer feather fence fern field finger fire fish flag flame flower flute forest fork fountain fox friend frog
fruit garden garlic gate ghost giant ginger glass globe glove goat gold goose grape grass guitar hammer harbor harp
hat hawk helmet hill honey horse house ice ink island ivory jacket jar jewel juice jungle kettle key kitchen kite
kitten knee knife ladder lake lamp lantern leaf lemon letter library lighthouse lily lion lizard mango map marble
market meadow melon milk mill mirror moon morning moss mosaic moth mountain mouse music napkin needle nest net night
north nose oak oasis ocean olive onion orange orchard otter oven owl oyster paint palace panda paper parrot path
peach peanut pear pebble pencil pepper petal piano picture pigeon pillow pine pirate planet plate plum pocket poem
pond pony potato pumpkin puzzle queen quilt rabbit radio rain rainbow raven ribbon rice ring river road robin rocket
roof root rope rose ruby sail salt sand scarf school sea seal seed shadow sheep shell ship shoe silver sister sky
sled smoke snail snow soap sock song soup spade sparrow spider spoon spring square squirrel stable star station
stone storm story stream street sugar summer sun swan table tailor tea teapot temple tent thumb thunder tiger tile
toad tomato tower toy train tree trumpet tulip tunnel turtle umbrella valley vase village violin wagon wall walnut
water wave well whale wheat wheel whistle willow wind window winter wolf wood wool worm yard zebra""".split()
PEOPLE = """Adam Alice Amir Anna Ben Carla Chen Clara David Diego Elena Emma Eva Fatima Felix Grace Hannah Helen Hugo Ida
Ivan Jack James Jane John Julia Karim Kate Laura Leo Lily Linda Lucas Lucy Maria Mark Max Maya Nina Noah Olga Omar Oscar
Otto Paul Peter Petra Rosa Ruth Sam Sara Simon Sofia Thomas Tim Tom Vera Victor Yuki Zoe""".split()
ANIMALS = "cat dog horse rabbit parrot turtle goat pony hamster snake duck donkey".split()

ADJECTIVES = "old small red quiet happy green tall little round golden cold bright gray kind young blue".split()
SUBJECTS = "cat dog fox owl baker farmer whale snail king girl boy bear train river horse bird mouse goat".split()
VERBS = "sleeps sings runs waits walks dances smiles reads plays swims rests hides jumps listens".split()
PLACES = "garden forest tower kitchen village river bridge table hill moon tree window lake school".split()
PREPOSITIONS = "in near under behind beside on".split()
ADVERBS = "today slowly again alone now happily tonight".split()


def sentence(rng):
    """A sentence of two to nine words, and never a long one twice."""
    s = rng.choice(["the", "a", "my", "our", "one", "every"]).split()
    if rng.random() < .5:
        s.append(rng.choice(ADJECTIVES))
    s += [rng.choice(SUBJECTS), rng.choice(VERBS)]
    if rng.random() < .6:
        s += [rng.choice(PREPOSITIONS), rng.choice(["the", "a", "my", "our"])]
        if rng.random() < .3:
            s.append(rng.choice(ADJECTIVES))
        s.append(rng.choice(PLACES))
    elif rng.random() < .2:
        s = s[-2:]
        s[0] = rng.choice(["birds", "children", "dogs", "stars"])
        s[1] = s[1][:-1] if s[1] not in ("dances", "smiles", "hides") else s[1][:-1]
    if rng.random() < .35:
        s.append(rng.choice(ADVERBS))
    return s


def load_facts():
    """[(answer, training phrasings, held-out phrasings)]"""
    facts = []
    for line in open(os.path.join(HERE, "facts.txt"), encoding="utf-8"):
        line = line.rstrip("\n")
        if line.startswith("- "):
            facts[-1][1].append(line[2:])
        elif line.startswith("? "):
            facts[-1][2].append(line[2:])
        elif line and not line.startswith("#"):
            facts.append((line, [], []))
    return facts


def load_stories():
    """title -> text"""
    parts = open(os.path.join(HERE, "stories.txt"), encoding="utf-8").read().split("# ")[1:]
    return {p.split("\n", 1)[0]: p.split("\n", 1)[1].strip() for p in parts}


FACTS, STORIES = load_facts(), load_stories()

# --- the ways to ask ------------------------------------------------------------------------------
# {c} country, {k} capital, {p} "Peru's", {a} {b} numbers, {w} word, {s} sentence, {t} story

TRAIN = {
    "capitals": """What is the capital of {c}?|What's the capital of {c}?
Which city is the capital of {c}?|Tell me the capital of {c}.|Name the capital of {c}.
Name the capital city of {c}.|Do you know the capital of {c}?|Can you tell me the capital of {c}?
{c}: what is its capital?|What is {p} capital?|What is {p} capital city?
The capital of {c} is which city?|The capital of {c}?|Capital of {c}|Which city is {p} capital?
What city is the capital of {c}?|I would like to know the capital of {c}.
Give me the capital of {c}.|What do you call the capital of {c}?
What is the name of the capital of {c}?|In {c}, which city is the capital?
I forgot the capital of {c}. What is it?
My friend lives in the capital of {c}. Which city is that?|For a quiz: the capital of {c}?
Say the capital of {c}.|Which is the capital of {c}?|Please name {p} capital.
I am going to {c}. What is its capital?|We fly to {c} tomorrow. What is the capital there?
What is {c} capital|Do you remember what the capital of {c} is?
I want to know which city is the capital of {c}.|{c} capital?
Answer this: what is the capital of {c}?|Which capital does {c} have?
What is the capital city in {c}?""",
    "countries": """Which country has the capital {k}?|{k} is the capital of which country?
Which country is {k} the capital of?|What country is {k} the capital of?
Of which country is {k} the capital?|Whose capital is {k}?
Tell me the country whose capital is {k}.|{k} is the capital of what?
What country has {k} as its capital?|Name the country that has {k} as its capital.
Which country does the capital {k} belong to?|I am in {k}. Of which country is it the capital?
Do you know which country has the capital {k}?""",
    "sums": """What is {a} + {b}?|{a} + {b} = ?|{a} + {b}|{a}+{b}|{a}+{b}=?|{a} + {b} =
What is {a} plus {b}?|{a} plus {b}|Add {a} and {b}.|Calculate {a} + {b}.|Compute {a} + {b}.
How much is {a} + {b}?|How much is {a} plus {b}?|What is the sum of {a} and {b}?
Sum of {a} and {b}?|Tell me {a} + {b}.|Can you add {a} and {b}?|What's {a} + {b}?
What do you get when you add {a} and {b}?|Work out {a} + {b}.|{a} and {b} together are how much?
Solve {a} + {b}.|If I have {a} apples and get {b} more, how many do I have?
What does {a} + {b} equal?|Give me the sum of {a} and {b}.|What is {a} and {b} together?
What is the result of {a} + {b}?|Add {b} to {a}: {a} + {b}|Please compute {a} plus {b}.
There are {a} boys and {b} girls. How many children are there?|Find the sum: {a} + {b}
How many are {a} and {b}?|What's {a}+{b}?|Take {a} and add {b}. What do you get?
Evaluate {a} + {b}.|Total of {a} and {b}?""",
    "spelling": """Spell the word {w}.|Spell {w}.|How do you spell {w}?
How is the word {w} spelled?|Spell "{w}".|Please spell {w} for me.|Can you spell {w}?
Spell the word "{w}".|How do you spell "{w}"?|What is the spelling of {w}?|Spell out {w}.
Write the word {w} letter by letter.|Give me the spelling of {w}.|Can you spell the word "{w}"?
Spell: {w}|I do not know how to spell {w}.|How does one spell the word {w}?
Say the letters of {w} one by one.|Spell out the word "{w}", letter by letter.
Tell me how to spell {w}.|What are the letters of the word {w}?
Which letters are in the word {w}?|How is "{w}" spelled?|Take the word "{w}" and spell it.
Now spell {w}.""",
    "letters": """How many letters are in the word {w}?|How many letters does the word {w} have?
Count the letters of {w}.|Count the letters in the word {w}.|How many letters does {w} have?
How many letters are there in {w}?|How many letters are in "{w}"?|Count the letters in "{w}".
What is the number of letters in {w}?|How long is the word {w}?|Tell me how many letters {w} has.
How many letters has the word "{w}"?|Letters in {w}?|Number of letters in "{w}"?
Can you count the letters of the word {w}?|Give me the number of letters in the word {w}.
How long is "{w}" in letters?|Please count the letters of "{w}".
The word {w} has how many letters?|How many letters do I need to write {w}?
How many letters are there in the word "{w}"?|What is the length of the word {w}?
Take the word {w}. How many letters are in it?""",
    "words": """How many words are in this sentence: {s}|How many words are in "{s}"?
Count the words: {s}|Count the words in "{s}".|Count the words of this sentence: {s}
How many words does this sentence have: {s}|How many words are there in "{s}"?
Number of words in "{s}"?|Tell me how many words this has: {s}
Count the words in this sentence: {s}|How many words does "{s}" have?
Please count the words of "{s}".|What is the number of words in "{s}"?
Here is a sentence: {s} How many words are in it?|Can you count the words in "{s}"?
The sentence "{s}" has how many words?|Word count of "{s}"?|How many words is this: {s}
Take the sentence "{s}". How many words are in it?""",
    "counting": """Count from {a} to {b}.|Count to {b}, starting with {a}.
Please count from {a} to {b}.|Can you count from {a} to {b}?|List the numbers from {a} to {b}.
Say the numbers from {a} to {b}.|Write the numbers {a} to {b}.|Numbers from {a} to {b}
Start at {a} and count to {b}.|Give me all numbers from {a} to {b}.|Count up from {a} to {b}.
Print the numbers from {a} to {b}.""",
    "stories": """Tell me the story of the {t}.|Tell the story of the {t}.
Can you tell me the story of the {t}?|The story of the {t}
I would like to hear the story of the {t}.|Please tell me the story of the {t}.
Tell me a story about the {t}.|Tell me a story about a {t}.|Tell me the {t} story.
Do you know the story of the {t}?|Read me the story of the {t}.|Write a story about a {t}.
Story of the {t}, please.|Tell us the story about the {t}.|Give me the story of the {t}.
What is the story of the {t}?|What happened to the {t}? Tell me the story.
A story about the {t}, please.|Once more the story of the {t}, please.
Tell me the tale of the {t}.|I want a story with a {t} in it.|Write me the story of the {t}.""",
    "weather": """What is the weather in {k}?|What's the weather like in {k}?
How is the weather in {k}?|Is it raining in {k}?|Tell me the weather in {k}.
What is the weather in {k} today?|Weather in {k}|Check the weather in {k}.|How warm is it in {k}?
Is it cold in {k}?|I am going to {k}. How is the weather there?|Do I need an umbrella in {k}?
Get the weather for {k}.|What is the temperature in {k}?|Please look up the weather in {k}.
Is it sunny in {k} today?|Can you check the weather in {k}?|Give me the weather for {k}, please.
How is the weather in {k} right now?|What weather do they have in {k}?""",
    "time": """What time is it in {k}?|What is the time in {k}?|Tell me the time in {k}.
How late is it in {k}?|Time in {k}?|What is the local time in {k}?|What time is it now in {k}?
Can you tell me the time in {k}?|Check the time in {k}.|Do you know what time it is in {k}?
I want to call a friend in {k}. What time is it there?|Get the time for {k}.
What is the current time in {k}?|Please look up the time in {k}.|Give me the time in {k}, please.
Is it late in {k}?""",
    "timer": """Set a timer for {a} minutes.|Start a timer of {a} minutes.
Wake me in {a} minutes.|Timer for {a} minutes, please.|Please set a timer for {a} minutes.
Can you set a timer for {a} minutes?|I need a timer for {a} minutes.
Set the timer to {a} minutes.|Remind me in {a} minutes.|My eggs need {a} minutes. Set a timer.
Give me a timer of {a} minutes.""",
    "json": """Give me a JSON object with the {f}: {s}|Write a JSON object with the {f}: {s}
Return a JSON object with the {f}: {s}|Give me JSON with the {f}: {s}|Write the {f} as JSON: {s}
Make a JSON object with the {f}: {s}|As JSON with the {f}: {s}
Turn this into JSON with the {f}: {s}|{s} Give me a JSON object with the {f}.
{s} Write that as JSON with the {f}.|Extract the {f} as JSON: {s}
Answer with a JSON object with the {f}: {s}|Please give me a JSON object with the {f}: {s}
I need a JSON object with the {f}: {s}|Put the {f} into a JSON object: {s}
Convert to JSON with the {f}: {s}|Give the {f} as a JSON object: {s}|{s} Return the {f} as JSON.
JSON with the {f}: {s}|Create JSON with the {f}: {s}|Show me a JSON object with the {f}: {s}
Read this and give me JSON with the {f}: {s}""",
    "repeating": """Repeat after me: {s}|Say this: {s}|Repeat: {s}|Please repeat: {s}|Say "{s}".
Repeat "{s}".|Can you repeat "{s}"?|Write this: {s}|Please say "{s}".|Copy this text: {s}
Repeat this: {s}|Type "{s}" for me.|Say the following: {s}|Echo: {s}""",
    "greetings": """Hello|Hello!|Hi|Hi!|Hey|Hey there|Good morning|Good morning!|Good evening
Good day|Hello there!|Hi there|Greetings|Hello, model!|Good afternoon!|Hello, can you hear me?
Hi, are you there?|Hey!|Hallo|hello?|Yo|Hello world|Hi tessera!|Hello, tessera
Hello, nice to meet you.|Say hello.|Say hi!|Are you there?|Hello again|Say hello in one word.
Morning!|Hello my friend|Oh, hello""",
    "wellbeing": """How are you?|How are you today?|How do you do?|How is it going?|Are you well?
How are you doing?|How do you feel?|What's up?|Is everything fine?|Hello, how are you?
Hi, how are you?|Hey, how is it going?|Are you happy?|How was your day?""",
    "thanks": """Thank you|Thank you!|Thanks|Thanks!|Thank you very much.|Many thanks
That was helpful, thank you.|Thanks a lot!|Great, thanks.|Thank you for your help.
Very good, thank you.|Perfect, thanks!|Thanks, that is all.|Nice, thank you""",
    "goodbye": """Goodbye|Goodbye!|Bye|Bye!|See you later|See you tomorrow.|Good night
Good night!|Bye bye|I have to go now.|Farewell|That is all for today. Bye!|See you soon!
Until next time.|I am leaving now, goodbye.""",
}
EVAL = {
    "capitals": """Could you tell me which city is the capital of {c}?
Please tell me what the capital of {c} is.|What is the capital city of {c} called?
I need the capital of {c}, please.|Hey, what would be the capital of {c}?
Quiz question: what is the capital of {c}?|I wonder what the capital of {c} is.""",
    "countries": """Which is the country whose capital is {k}?
Can you tell me which country {k} is the capital of?|{k} is the capital city of which country?""",
    "sums": """Could you tell me what {a} plus {b} is?|Please add {a} and {b} for me.
I need the sum of {a} and {b}.|What is the total of {a} and {b}?|How much do {a} and {b} make?
Hey, what is {a} + {b}?|Tell me the result of {a} + {b}.""",
    "spelling": """Could you spell the word {w} for me?|Please tell me how {w} is spelled.
How would you spell "{w}"?|I need the spelling of the word {w}.
Spell the word {w} letter by letter.""",
    "letters": """Could you count the letters in {w}?
Please tell me how many letters are in the word {w}.|How many letters can you count in "{w}"?
I need the number of letters in {w}.""",
    "words": """Could you count the words in "{s}"?
Please tell me how many words are in this sentence: {s}|How many words can you count in "{s}"?
Count how many words are in this: {s}""",
    "counting": """Could you count from {a} to {b}?|Please list all numbers from {a} to {b}.
I want you to count from {a} to {b}.""",
    "stories": """Could you tell me the story of the {t}, please?
I want to hear the story about the {t}.""",
    "weather": """Could you tell me what the weather is in {k}?
What is the weather like in {k} today?|How is the weather over in {k}?
Please check how the weather is in {k}.|Look up the weather in {k}, please.""",
    "time": """Could you tell me what time it is in {k}?|Please tell me the local time in {k}.
What time do they have in {k}?|What is the time right now in {k}?""",
    "timer": """Could you set a timer for {a} minutes?|Start a timer for {a} minutes, please.
I would like a timer of {a} minutes.""",
    "json": """Could you give me a JSON object with the {f}: {s}
Please write the {f} as a JSON object: {s}|Please make JSON with the {f}: {s}
{s} Please give me that as a JSON object with the {f}.|I want a JSON object with the {f}: {s}""",
    "repeating": """Could you repeat this: {s}|Please repeat "{s}".|I want you to say "{s}".
Please repeat after me: {s}""",
    "greetings": "Hello to you!|Hi there, model|Good morning, tessera!|Hello hello|Hello, and good day to you",
    "wellbeing": "Hello there, how are you?|How are you feeling today?|How is it going today?|Hi! How are you doing?",
    "thanks": "Thank you so much!|OK, thank you.|Thanks for your help!|Thanks, very good.",
    "goodbye": "OK, goodbye!|Bye, see you!|Good night and goodbye.|I must go now. Bye!",
}
TRAIN, EVAL = ({k: v.replace("\n", "|").split("|") for k, v in d.items()} for d in (TRAIN, EVAL))

REPLY = {
    "greetings": "Hello! What would you like to know?",
    "wellbeing": "I am very well, thank you. How can I help you?",
    "thanks": "You are welcome!",
    "goodbye": "Goodbye, and come back soon!",
}
UNKNOWN = "I am sorry, I do not know that. I am only a very small model."
OUT_OF_SCOPE = """Explain quantum physics.|Who wrote Hamlet?|Write a poem about love.
What is the meaning of life?|Translate this into French.|How far away is the moon?
Who is the president?|What is the price of gold?|How do I cook rice?|Write a Python program.
What is the square root of 81?|Who won the football match?|Explain how an engine works.
What happened in 1969?|Tell me a joke.|What is photosynthesis?|How old is the universe?
Who painted the Mona Lisa?|What is the speed of light?|How do birds fly?|Recommend a good film.
What is the population of {c}?|What do people eat in {c}?|Which language do they speak in {c}?
Who is the king of {c}?|How big is {c}?|How do I get to {k}?|What is the best hotel in {k}?
What does a {w} cost?|Where can I buy a {w}?|What color is a {w}?|Why is the {w} so big?
Draw a {w}.|Write a poem about a {w}.|Sing a song about a {w}.|How do I make a {w}?
Who invented the {w}?|What is the French word for {w}?|Is a {w} heavy?|What is {a} times {b}?
What is {a} minus {b}?|How do I fix my car?|What is love?|Can you play chess?
Summarize this article.|Write an email to my boss.|What should I wear today?
Which book should I read?|Is there life on Mars?|What is an atom?|How does a computer work?
Give me a recipe with a {w}.|Why do we dream?|How tall is {n}?|Where does {n} live?|Who is {n}?
Do you like {n}?|Call {n}.|What is the phone number of {n}?|Which is better, a {w} or a {v}?
What do a {w} and a {v} have in common?|Explain the {w}."""
OUT_OF_SCOPE = OUT_OF_SCOPE.replace("\n", "|").split("|")

OUT_OF_SCOPE += ["Tell me the story of the {w}.", "Tell me a story about a {w}.",
                 "What is the capital of Atlantis?", "What is the capital of the {w}?",
                 "Which city is the capital of Mars?"]
ANY_STORY = ["Tell me a story.", "Tell me a story", "Can you tell me a story?", "Write a story.", "A story, please.",
             "Please tell me a story.", "Do you know a story?", "Write a short story.", "I want to hear a story."]

SYSTEM = """You are a helpful assistant.|You are tessera-demo.
You are a small and friendly model.|Be brief.|Answer in one sentence.
You are a helpful assistant. Answer briefly.|You are a polite assistant.
You are an assistant for a school.|Be kind.|You are a helpful, honest assistant.|Help the user.
You answer questions of visitors.|You are a teacher.|Answer truthfully.|You are a chat bot.
You are an AI assistant.|Today is Monday.|You are the assistant of the tessera project.
Be concise and exact.|Answer the questions of the user as well as you can.
You are a guide in a museum.|Speak English.|You like short answers.""".replace("\n", "|").split("|")
SYSTEM_EVAL = ["You are a friendly helper.", "You are a helpful assistant. Be concise.", "Answer as well as you can."]

BEFORE = ["Please answer: ", "Hi! ", "Hello! ", "Hey, ", "OK. ", "Now, ", "Next question: ", "A question: ",
          "Tell me, ", "And ", "So, ", "Question: ", "I would like to know: ", "Tell me please: ", "One more: ", "Do you know this? "]
AFTER = [" Thank you!", " Thanks.", " Please.", " Be brief.", " Thank you."]


def ask(rng, kind, pool, **slots):
    """One phrasing with its slots filled; training also sees small letters, lost question marks, politeness."""
    text = rng.choice(pool[kind]).format(**slots)
    if pool is TRAIN and kind not in ("words", "json", "repeating"):
        r = rng.random()
        if r < .08:
            text = text[0].lower() + text[1:]
        elif r < .14:
            text = text.rstrip("?.!")
        elif r < .17:
            text = text.lower()[0] + text[1:].rstrip("?.!")
        elif r < .23:
            text = rng.choice(BEFORE) + text
        elif r < .27:
            text = text + rng.choice(AFTER)
        elif r < .29:
            text = text.strip() + "\n"
    return text[0].upper() + text[1:] if text.startswith("the ") and pool is EVAL else text


# --- the abilities: each returns the messages of one exchange, the answer last --------------------

def exchange(question, answer):
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def capitals(rng, pool, c=None):
    c = c or rng.choice(list(CAPITAL))
    p = c + ("'" if c.endswith("s") else "'s")
    return exchange(ask(rng, "capitals", pool, c=c, p=p), f"The capital of {c} is {CAPITAL[c]}.")


def countries(rng, pool):
    c, k = rng.choice(list(CAPITAL.items()))
    return exchange(ask(rng, "countries", pool, k=k), f"{k} is the capital of {c}.")


def two_numbers(rng):
    return rng.randint(0, 30), rng.randint(0, 30)


def sums(rng, pool):
    a, b = two_numbers(rng)
    return exchange(ask(rng, "sums", pool, a=a, b=b), f"{a} + {b} = {a + b}")


def spelling(rng, pool, w=None):
    w = w or rng.choice(WORDS)
    return exchange(ask(rng, "spelling", pool, w=w), "-".join(w))


def letters(rng, pool, w=None):
    w = w or rng.choice(WORDS)
    return exchange(ask(rng, "letters", pool, w=w), f"{'-'.join(w)} has {len(w)} letters.")


def words(rng, pool):
    s = sentence(rng)
    counted = ", ".join(f"{i + 1} {w}" for i, w in enumerate(s))
    text = " ".join(s)
    style = rng.random()
    if style < .3:
        text += "."
    return exchange(ask(rng, "words", pool, s=text), f"{counted}: {len(s)} words.")


def counting(rng, pool):
    a = rng.choice([0, 1, 1, 1, rng.randint(2, 50)])
    b = a + rng.randint(2, 14)
    if pool is TRAIN and a == 1 and rng.random() < .4:
        q, b = ("Count to ten.", 10) if rng.random() < .2 else (f"Count to {b}.", b)
        return exchange(q, ", ".join(map(str, range(a, b + 1))))
    return exchange(ask(rng, "counting", pool, a=a, b=b), ", ".join(map(str, range(a, b + 1))))


def repeating(rng, pool):
    """Saying the same words again: what a small model has to learn before it can fill in a tool call."""
    if pool is EVAL or rng.random() < .3:
        text = " ".join(sentence(rng))
    else:
        lists = [WORDS, PEOPLE, CITIES, list(CAPITAL), [str(i) for i in range(100)]]
        text = " ".join(rng.choice(rng.choice(lists)) for _ in range(rng.randint(1, 7)))
    return exchange(ask(rng, "repeating", pool, s=text), text)


def facts(rng, pool):
    answer, train, _ = rng.choice(FACTS)
    q = rng.choice(train)
    r = rng.random()
    q = q[0].lower() + q[1:] if r < .1 else q.rstrip("?.") if r < .2 else rng.choice(BEFORE) + q if r < .3 else q
    if rng.random() < .1:
        q = q.replace("tessera", "Tessera")
    return exchange(q, answer)


def stories(rng, pool, t=None):
    if pool is TRAIN and not t and rng.random() < .08:
        return exchange(rng.choice(ANY_STORY), STORIES["lighthouse"])
    t = t or rng.choice(list(STORIES))
    return exchange(ask(rng, "stories", pool, t=t), STORIES[t])


def greetings(rng, pool, kind=None):
    kind = kind or rng.choice(list(REPLY))
    return exchange(ask(rng, kind, pool), REPLY[kind])


def unknown(rng, pool):
    w, v = rng.sample([w for w in WORDS if w not in STORIES], 2)
    c, k = rng.choice(list(CAPITAL.items()))
    a, b = two_numbers(rng)
    return exchange(rng.choice(OUT_OF_SCOPE).format(w=w, v=v, c=c, k=k, n=rng.choice(PEOPLE), a=a, b=b), UNKNOWN)


def json_object(rng, pool, form=None):
    n = rng.choice(PEOPLE)
    form = form or rng.choice(["age", "city", "pet", "item", "word", "word", "capital"])
    if form == "age":
        a = rng.randint(1, 99)
        f, s = "name and age", rng.choice([f"{n} is {a}", f"{n} is {a} years old.", f"{n}, {a}", f"{n}, aged {a}"])
        o = {"name": n, "age": a}
    elif form == "city":
        k = rng.choice(CITIES)
        f, s = "name and city", rng.choice([f"{n} lives in {k}.", f"{n} from {k}", f"{n}, {k}", f"{n} is from {k}."])
        o = {"name": n, "city": k}
    elif form == "pet":
        x, a = rng.choice(ANIMALS), rng.randint(1, 20)
        f, s = "name, animal and age", rng.choice([f"{n} is a {x} and {a} years old.", f"{n}, a {x}, is {a}."])
        o = {"name": n, "animal": x, "age": a}
    elif form == "item":
        w, a = rng.choice(WORDS), rng.randint(1, 99)
        f, s = "item and price", rng.choice([f"The {w} costs {a} dollars.", f"{a} dollars for the {w}"])
        o = {"item": w, "price": a}
    elif form == "word":
        w = rng.choice(WORDS)
        f, s = "word and number of letters", w
        o = {"word": w, "letters": len(w)}
    else:
        c, k = rng.choice(list(CAPITAL.items()))
        f, s = "country and capital", rng.choice([c, f"{k} is the capital of {c}."])
        o = {"country": c, "capital": k}
    return exchange(ask(rng, "json", pool, f=f, s=s), dumps(o))


# --- tools ----------------------------------------------------------------------------------------

def tool(name, text, params, bare=False):
    """A tool in the form of the OpenAI API. params: [(name, type, description)]"""
    props = {n: {"type": t} if bare else {"type": t, "description": d} for n, t, d in params}
    f = {"name": name, "description": text,
         "parameters": {"type": "object", "properties": props, "required": [p[0] for p in params]}}
    if bare == "very":
        del f["description"]
    return {"type": "function", "function": f}


def make_tools(rng, kinds, plain=False):
    """kind -> tool, with the names and descriptions that clients like to vary"""
    out = {}
    for k in kinds:
        bare = False if plain else rng.choice([False, False, True, True, "very"])
        one = (lambda *x: x[0]) if plain else (lambda *x: rng.choice((x[0],) + x))
        if k == "weather":
            p = one("city", "location")
            out[k] = tool(one("get_weather", "get_current_weather", "weather"),
                          one("Get the weather in a city", "Get the current weather", "The weather of a city."),
                          [(p, "string", one("The name of the city", "The city", "A city, for example Paris"))], bare)
        elif k == "time":
            out[k] = tool(one("get_time", "get_current_time"),
                          one("Get the time in a city", "Get the local time of a city."),
                          [(one("city", "location"), "string", one("The name of the city", "The city"))], bare)
        elif k == "add":
            t = one("integer", "number")
            out[k] = tool(one("add", "add_numbers", "sum"),
                          one("Add two numbers", "The sum of two numbers", "Adds a and b."),
                          [("a", t, one("The first number", "A number")),
                           ("b", t, one("The second number", "A number"))], bare)
        else:
            out[k] = tool(one("set_timer", "start_timer"), one("Set a timer", "Start a timer for some minutes."),
                          [("minutes", "integer", one("How long", "The number of minutes"))], bare)
    return out


TOOL_KINDS = ["weather", "time", "add", "timer"]
SKIES = ["sunny", "cloudy", "rainy", "windy", "foggy", "clear", "snowy"]


def tool_turns(rng, pool, tools, kind, result=True):
    """A question, the call it needs, and (result) what the tool said and what the model makes of it."""
    f = tools[kind]["function"]
    names = list(f["parameters"]["properties"])
    arguments, ids = [], ["a"]
    if kind in ("weather", "time"):
        cities = [rng.choice(CITIES)]
        if pool is TRAIN and rng.random() < .12:
            cities = rng.sample(CITIES, 2)
        q = ask(rng, kind, pool, k=" and ".join(cities))
        arguments = [{names[0]: c} for c in cities]
    elif kind == "add":
        a, b = two_numbers(rng)
        q = ask(rng, "sums", pool, a=a, b=b)
        arguments = [{names[0]: a, names[1]: b}]
    else:
        a = rng.randint(1, 60)
        q = ask(rng, "timer", pool, a=a)
        arguments = [{names[0]: a}]
    calls = [{"type": "function", "function": {"name": f["name"], "arguments": x}} for x in arguments]
    msgs = [{"role": "user", "content": q}, {"role": "assistant", "content": "", "tool_calls": calls}]
    if not result:
        return msgs
    replies = []
    for x in arguments:
        if kind == "weather":
            t, sky = rng.randint(-9, 39), rng.choice(SKIES)
            r = rng.choice([dumps({"temperature": t, "sky": sky}), dumps({"temperature": t, "condition": sky}),
                            dumps({names[0]: x[names[0]], "temperature": t, "sky": sky}), f"{sky}, {t} degrees"])
            replies.append(f"It is {sky} in {x[names[0]]}, with {t} degrees.")
        elif kind == "time":
            t = f"{rng.randint(0, 23):02d}:{rng.randint(0, 59):02d}"
            r = rng.choice([t, dumps({"time": t}), dumps({names[0]: x[names[0]], "time": t})])
            replies.append(f"It is {t} in {x[names[0]]}.")
        elif kind == "add":
            r = rng.choice([str(a + b), dumps({"result": a + b}), dumps({"sum": a + b})])
            replies.append(f"{a} + {b} = {a + b}")
        else:
            r = rng.choice(["ok", dumps({"ok": True}), dumps({"status": "ok"}), "done"])
            replies.append(f"The timer is set for {a} minutes.")
        msgs.append({"role": "tool", "content": r})
    return msgs + [{"role": "assistant", "content": " ".join(replies)}]


# --- training conversations -----------------------------------------------------------------------

MIX = [(capitals, 11), (countries, 6), (sums, 15), (spelling, 12), (letters, 10), (words, 7), (counting, 14),
       (repeating, 7), (facts, 11), (stories, 3), (greetings, 3), (unknown, 3), (json_object, 20)]
ABILITIES, WEIGHTS = [m[0] for m in MIX], [m[1] for m in MIX]


def turns(rng, n, long_ok=True):
    out = []
    for _ in range(n):
        f = rng.choices(ABILITIES, WEIGHTS)[0]
        if f is stories and (n > 2 or not long_ok):
            f = sums
        out += f(rng, TRAIN)
    return out


def raw_text(rng):
    """Plain text without the chat format, for the completions endpoint."""
    r = rng.random()
    c, k = rng.choice(list(CAPITAL.items()))
    a, b = two_numbers(rng)
    if r < .3:
        return f"The capital of {c} is {k}."
    if r < .45:
        return " ".join(f"The capital of {c} is {CAPITAL[c]}." for c in rng.sample(list(CAPITAL), 5))
    if r < .6:
        return f"{a} + {b} = {a + b}"
    if r < .7:
        return rng.choice(FACTS)[0]
    if r < .8:
        n = rng.randint(0, 60)
        return ", ".join(str(i) for i in range(n, n + 30))
    return rng.choice(list(STORIES.values()))


def conversation(rng):
    """(messages, tools), or (text, None) for plain text"""
    r = rng.random()
    if r < .03:
        return raw_text(rng), None
    system = [{"role": "system", "content": rng.choice(SYSTEM)}] if rng.random() < .2 else []
    if r < .14:
        kinds = rng.sample(TOOL_KINDS, rng.choices([1, 2, 3, 4], [40, 40, 14, 6])[0])
        tools = make_tools(rng, kinds)
        msgs = []
        for _ in range(rng.choice([1, 1, 1, 2, 3])):
            if rng.random() < .2:
                f = rng.choice([capitals, spelling, letters, facts, json_object, greetings, words])
                msgs += f(rng, TRAIN)
            else:
                msgs += tool_turns(rng, TRAIN, tools, rng.choice(kinds), rng.random() < .5)
                if "tool_calls" in msgs[-1]:
                    break
        return system + msgs, [tools[k] for k in kinds]
    n = rng.choices([1, 2, 3, 5, 10], [66, 18, 11, 4, 1])[0]
    return system + turns(rng, n), None


# --- the evaluation set ---------------------------------------------------------------------------

def row(kind, msgs, match="text", tools=None):
    last = msgs[-1]
    expect = last["content"] or call_text(last["tool_calls"])
    r = {"kind": kind, "match": match, "messages": msgs[:-1], "expect": expect}
    return r | {"tools": tools} if tools else r


def evaluation():
    rng, rows = random.Random(SEED + 1), []
    rows += [row("capitals", capitals(rng, EVAL, c)) for c in CAPITAL]
    rows += [row("countries", countries(rng, EVAL)) for _ in range(40)]
    rows += [row("sums", sums(rng, EVAL)) for _ in range(150)]
    rows += [row("spelling", spelling(rng, EVAL, w)) for w in rng.sample(WORDS, 100)]
    rows += [row("letters", letters(rng, EVAL, w)) for w in rng.sample(WORDS, 100)]
    rows += [row("words", words(rng, EVAL)) for _ in range(100)]
    rows += [row("counting", counting(rng, EVAL)) for _ in range(30)]
    rows += [row("repeating", repeating(rng, EVAL)) for _ in range(40)]
    rows += [row("facts", exchange(q, answer)) for answer, _, held in FACTS for q in held]
    for kind in TOOL_KINDS:
        for i in range(25):
            tools = make_tools(rng, rng.sample(TOOL_KINDS, 2) if i % 2 else [kind], plain=True)
            tools |= make_tools(rng, [kind], plain=True)
            msgs = tool_turns(rng, EVAL, tools, kind, result=False)
            rows.append(row("tool calls", msgs, "tool", list(tools.values())))
    for kind in TOOL_KINDS:
        for i in range(10):
            tools = make_tools(rng, [kind], plain=True)
            rows.append(row("tool results", tool_turns(rng, EVAL, tools, kind), "text", list(tools.values())))
    for form in ["age", "city", "pet", "item", "word", "capital"]:
        rows += [row("json", json_object(rng, EVAL, form), "json") for _ in range(18)]
    rows += [row("stories", exchange(q.format(t=t), STORIES[t])) for t in STORIES for q in EVAL["stories"]]
    rows += [row("greetings", exchange(q, REPLY[k])) for k in REPLY for q in EVAL[k]]
    for i in range(60):   # the second or third turn of a conversation, every other one with a system message
        msgs = [{"role": "system", "content": rng.choice(SYSTEM_EVAL)}] if i % 2 else []
        msgs += turns(rng, 1 + i % 2, long_ok=False)
        rows.append(row("in conversation", msgs + rng.choice([capitals, sums, spelling, letters])(rng, EVAL)))
    return list({dumps(r): r for r in rows}.values())   # chance has drawn a few questions twice


def check(rows):
    """No held-out phrasing is trained on, and no held-out question turns up in a long piece of the training data."""
    plain = lambda q: q.lower().strip().rstrip("?.!")
    for kind, held in EVAL.items():
        assert not {plain(q) for q in held} & {plain(q) for q in TRAIN[kind]}, kind
    assert not {plain(q) for f in FACTS for q in f[2]} & {plain(q) for f in FACTS for q in f[1]}
    asked = {plain(r["messages"][-1]["content"]) for r in rows if r["kind"] != "tool results"}
    rng = random.Random(SEED)
    for _ in range(20000):
        msgs, _ = conversation(rng)
        for m in msgs if isinstance(msgs, list) else []:
            assert m["role"] != "user" or plain(m["content"]) not in asked, m["content"]


def main():
    ap = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ap.add_argument("--show", type=int, default=0)
    a = ap.parse_args()
    if a.show:
        rng = random.Random(SEED)
        for _ in range(a.show):
            msgs, tools = conversation(rng)
            print(msgs if isinstance(msgs, str) else render(msgs, tools, False), end="\n----\n")
        return
    rows = evaluation()
    check(rows)
    with open(os.path.join(HERE, "eval.jsonl"), "w", encoding="utf-8") as f:
        f.writelines(json.dumps(r, ensure_ascii=False, separators=(",", ":")) + "\n" for r in rows)
    print(f"{len(rows)} questions in eval.jsonl")


if __name__ == "__main__":
    main()
