"""How questions are put: several wordings for each kind, one of which is drawn.

And one that never is: the judge asks in it, since a model may have learned the wordings alone.

{s} is the definition asked about, {p} its path, {a} a parameter or a quoted sentence.
"""

from __future__ import annotations

WORDINGS: dict[str, list[str]] = {
    "purpose": [
        "What does {s} do?",
        "What is the purpose of {s}?",
        "Describe in one sentence what {s} is for.",
        "I came across {s}. What is it there for?",
        "In short, what is {s} responsible for?",
        "Someone asks what {s} is good for. What do you say?",
    ],
    "signature": [
        "What is the signature of {s}?",
        "How is {s} declared?",
        "Which parameters does {s} take? Give its declaration.",
        "I want to call {s}. What does its declaration look like?",
        "Give the declaration of {s} as it stands in the code.",
    ],
    "default": [
        "What is the default of the parameter `{a}` of {s}?",
        "If {s} is called without `{a}`, which value does `{a}` have?",
        "Which value does `{a}` take by default in {s}?",
        "I leave out `{a}` when I call {s}. What is used instead?",
    ],
    "returns": [
        "Which type does {s} return?",
        "What is the return type of {s}?",
        "A call of {s} gives a value of which type?",
        "What type is declared for the result of {s}?",
    ],
    "raises": [
        "Which exceptions does {s} raise itself?",
        "What can be raised in the body of {s}?",
        "Name the exceptions that {s} raises directly.",
        "Which `raise` statements does {s} hold? Name the exceptions.",
    ],
    "members": [
        "Which methods does {s} define?",
        "List the methods that stand in {s}.",
        "What are the methods of {s}, in their order in the code?",
    ],
    "calls": [
        "Which functions and classes of this repository does {s} call?",
        "What does {s} call within this code base?",
        "Name the repository's own definitions that {s} uses by calling them.",
        "On which of the repository's functions does {s} depend directly?",
    ],
    "callers": [
        "Which of the definitions shown here call {s}?",
        "Who calls {s} among these documents?",
        "In which of these documents is {s} called, and by what?",
        "If I change {s}, which of the definitions shown here call it?",
    ],
    "usage": [
        "How do the tests call {s}?",
        "Show a call of {s} from a test.",
        "Is there a test that shows how {s} is used? Give the statement.",
        "I need an example of {s} in use. What do the tests have?",
    ],
    "where": [
        "In which file is {s} defined?",
        "Where do I find {s}?",
        "Which file holds the definition of {s}?",
        "I want to change {s}. Which file do I open?",
    ],
    "find": [
        'Which definition is documented with "{a}"?',
        'Where is the code whose documentation says "{a}"?',
        'I look for the code that is described as "{a}". What is it called, and where is it?',
    ],
    "change": [
        "What was the most recent of the listed changes to `{p}` about?",
        "According to the commits shown, why was `{p}` last touched?",
        "What does the newest commit listed for `{p}` say?",
    ],
    "completion": [
        "Write the body of {s} as it stands in this repository. It begins:\n{a}",
        "Complete this definition of {s}, as the repository has it:\n{a}",
        "How does {s} go on after these lines?\n{a}",
    ],
    "hop_purpose": [
        "{s} calls one definition of this repository. What does that one do?",
        "What is the purpose of the repository's own function or class that {s} calls?",
    ],
    "hop_returns": [
        "{s} calls one function of this repository. Which type does that one return?",
        "What is the return type of the repository's own function that {s} calls?",
    ],
    "hop_raises": [
        "{s} calls one function of this repository. Which exceptions does that one raise itself?",
        "Which exceptions can the repository's own function that {s} calls raise directly?",
    ],
}

UNSEEN = {
    "purpose": "Tell me what job {s} has in this code base.",
    "signature": "How would I have to write a call of {s}? Copy the line that declares it.",
    "default": "Suppose nobody passes `{a}` to {s}: what is it then?",
    "returns": "What kind of object comes back from {s}?",
    "raises": "Which exceptions should I be ready to catch that stem from {s} itself?",
    "members": "What can be called on {s}? Go through its methods.",
    "calls": "To which functions and classes of the repository does {s} hand on work?",
    "callers": "Where, among the code shown, is {s} put to use?",
    "usage": "Copy a line in which the test suite exercises {s}.",
    "where": "Point me to the file with {s} in it.",
    "find": 'A comment in the code reads "{a}". Which definition does it belong to?',
    "change": "`{p}`: what did the latest commit in the list do?",
    "completion": "Here is how {s} starts. Write the rest of it, as it is in the code:\n{a}",
    "hop_purpose": "Look at what {s} calls in this repository. What is that for?",
    "hop_returns": "{s} calls one of the repository's functions. What type comes back from it?",
    "hop_raises": "{s} calls one of the repository's functions. What may that one throw itself?",
}
