"""Texts that describe no task of the universe: drawn at random, or written by people who want something else."""

import random
import string
from collections.abc import Callable

_WORDS = """time year people way day man thing woman life child world school state family student group country problem
hand part place case week company system program question work government night point home water room mother area money
story fact month lot right study book eye job business issue side kind head house service friend father power hour game
line end member law car city community name president team minute idea kid body back parent face level office door
health person art war history party result morning reason research girl guy moment air teacher force education run green
quickly because under never always sing purple mountain guitar river yesterday ocean slowly happy jump""".split()
_KEYBOARD = ("qwertyuiop", "asdfghjkl", "zxcvbnm")
_VISIBLE = string.ascii_letters + string.digits + string.punctuation


def _letters(rng: random.Random) -> str:
    return "".join(rng.choices(string.ascii_lowercase + "   ", k=rng.randint(3, 120)))


def _keyboard_mash(rng: random.Random) -> str:
    runs = ["".join(rng.choices(rng.choice(_KEYBOARD), k=rng.randint(4, 10))) for _ in range(rng.randint(1, 5))]
    return rng.choice(("", " ")).join(runs)


def _symbols(rng: random.Random) -> str:
    return "".join(rng.choices(_VISIBLE + "  ", k=rng.randint(5, 60)))


def _words(rng: random.Random) -> str:
    return " ".join(rng.choices(_WORDS, k=rng.randint(2, 15)))


def _characters(rng: random.Random) -> str:
    return "".join(rng.choices(_VISIBLE, k=rng.randint(1, 2)))


def _numbers(rng: random.Random) -> str:
    return " ".join(str(rng.randrange(10 ** rng.randint(1, 8))) for _ in range(rng.randint(1, 8)))


def _repeated(rng: random.Random) -> str:
    piece = rng.choice((rng.choice(_VISIBLE), f"{rng.choice(_WORDS)} ", "ha", "blah ", "test "))
    return piece * rng.randint(3, 40)


_KINDS: dict[str, Callable[[random.Random], str]] = {
    "letters": _letters,
    "keyboard_mash": _keyboard_mash,
    "symbols": _symbols,
    "words": _words,
    "characters": _characters,
    "numbers": _numbers,
    "repeated": _repeated,
}


def random_junk(seed: int, number: int) -> dict[str, list[str]]:
    """Kind -> `number` distinct texts of it; another seed draws others (of one or two characters, mostly others)."""
    return {kind: _distinct(draw, random.Random(f"{kind}:{seed}"), number) for kind, draw in _KINDS.items()}


def _distinct(draw: Callable[[random.Random], str], rng: random.Random, number: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < number:
        if text := draw(rng).strip():
            found[text] = None
    return list(found)


WRITTEN_JUNK: dict[str, list[str]] = {
    "code": [
        "def f(x): return x + 1",
        "import os; print(os.getcwd())",
        "for (int i = 0; i < n; i++) { sum += a[i]; }",
        "SELECT name FROM users WHERE id = 3;",
        '<div class="box"><p>Hi</p></div>',
        'git commit -m "fix bug"',
        "npm install --save react",
        "const x = [1, 2, 3].map(n => n * 2);",
        "#include <stdio.h>",
        "sudo apt-get update && sudo apt-get upgrade",
        '{"name": "x", "value": [1, 2, 3]}',
        "while True: pass",
        "public static void main(String[] args)",
        "if err != nil { return err }",
        "rm -rf node_modules/",
        "y = torch.nn.Linear(3, 4)(x)",
        "curl -X POST http://localhost:8000/v1",
        'fn main() { println!("hi"); }',
        "<?php echo $_GET['id']; ?>",
        "Traceback (most recent call last):",
    ],
    "other_languages": [
        "Ich gehe heute ins Kino mit meinen Freunden.",
        "Où est la bibliothèque, s'il vous plaît ?",
        "Me gusta mucho el café por la mañana.",
        "今天天气很好，我们去公园吧。",
        "Привет, как дела?",
        "Il gatto dorme sul divano tutto il giorno.",
        "こんにちは、元気ですか。",
        "안녕하세요, 만나서 반갑습니다.",
        "Sortiere die Wörter, das längste zuerst.",
        "Trie les mots par ordre alphabétique.",
        "Escribe el número más grande de la lista.",
        "Eu não sei o que fazer hoje.",
        "Waar is het station?",
        "Jag tycker om att läsa böcker.",
        "Dzień dobry, jak się masz?",
        "مرحبا كيف حالك",
        "שלום מה שלומך",
        "Bugün hava çok güzel.",
        "Compte les animaux dans la liste.",
        "नमस्ते आप कैसे हैं",
    ],
    "small_talk": [
        "hello how are you",
        "hi there",
        "good morning",
        "what's up?",
        "thanks a lot!",
        "who are you?",
        "what is the weather like today",
        "tell me a joke",
        "I love you",
        "how old are you?",
        "see you tomorrow",
        "nice to meet you",
        "what time is it",
        "I am so tired today",
        "can you help me?",
        "where do you live?",
        "happy birthday!",
        "my dog is called Rex",
        "did you watch the game last night?",
        "ok",
    ],
    "other_tasks": [
        "What is the capital of France?",
        "who won the world cup in 2010",
        "explain quantum mechanics to me",
        "write a poem about the sea",
        "book a flight from London to Rome",
        "recommend a good restaurant nearby",
        "solve x^2 + 3x = 7",
        "translate this into German",
        "write a Python function that reverses a list",
        "summarise the article below",
        "how do I boil an egg?",
        "classify the sentiment of this tweet as positive or negative",
        "Answer the multiple choice question about physics",
        "what is 12 times 17",
        "I want to lose weight, what should I eat",
        "play some music",
        "find the bug in my program",
        "fix the grammar of this sentence",
        "who wrote Hamlet and when",
        "give me three ideas for a birthday present",
    ],
}
"""Kind -> texts. Small talk and other tasks are English: some of it reads much like a description."""
