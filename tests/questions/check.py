"""Judges answers to the questions of questions.jsonl. README.md describes the rules.

    python3 check.py < answers.jsonl
    python3 check.py --self-test
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import textwrap

TIMEOUT_SECONDS = 5
# The exit status of a program that passed its last assert. A program that only ends does not pass.
PASSED_STATUS = 77
FOLDER = os.path.dirname(os.path.abspath(__file__))

EXPONENT = re.compile(r"\^\s*\{?[-+]?[0-9]+\}?")
NUMBER = re.compile(
    r"(?:(?<![\w)\].])-)?"
    r"(?<![\w])(?<![0-9]\.)"
    r"(?:(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?|(?<!\.)\.[0-9]+)"
    r"(?:[eE][-+]?[0-9]+)?"
)
LETTER = re.compile(r"(?<![\w'’])[A-D](?![\w'’])")
FENCE = re.compile(r"^[ \t]*```[ \t]*([\w+-]*)[^\n]*\n(.*?)(?:^[ \t]*```|\Z)", re.DOTALL | re.MULTILINE)

# Runs in the child process: first the answer, as a module that is not the main one, then the asserts.
RUNNER = """
import json, os, resource, sys
job = json.loads(sys.stdin.readline())
for name, limit in (("CPU", job["seconds"]), ("AS", 1 << 30), ("FSIZE", 1 << 20), ("NOFILE", 64), ("CORE", 0)):
    try:
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (limit, limit))
    except (AttributeError, ValueError, OSError):
        pass
names = {"__name__": "answer"}
exec(compile(job["code"], "answer", "exec"), names)
for line in job["asserts"]:
    exec(compile(line, "assert", "exec"), names)
os._exit(job["passed"])
"""


def last_number(text):
    """The last number in the text. An exponent, as in "cm^2" or "m2", is not a number."""
    text = EXPONENT.sub("", text.replace("\u2212", "-").replace("{,}", ","))
    found = [match.group() for match in NUMBER.finditer(text)]
    return float(found[-1].replace(",", "")) if found else None


def last_letter(text):
    found = LETTER.findall(text)
    return found[-1] if found else None


def last_object(text):
    """The last JSON object in the text that is not part of another one."""
    decoder = json.JSONDecoder(parse_constant=refuse_constant)
    found, start = None, text.find("{")
    while start != -1:
        try:
            found, start = decoder.raw_decode(text, start)
        except (ValueError, RecursionError):
            start += 1
        start = text.find("{", start)
    return found


def refuse_constant(name):
    raise ValueError(name + " is not JSON")


def equal(left, right):
    """Equality of JSON values: 1 and 1.0 are equal, 1 and true are not."""
    if isinstance(left, bool) or isinstance(right, bool):
        return left is right
    if isinstance(left, dict) and isinstance(right, dict):
        return left.keys() == right.keys() and all(equal(left[key], right[key]) for key in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(equal, left, right))
    return left == right


def code_of(text):
    """The first code block marked as Python, else the first without a mark, else the whole text."""
    blocks = [(mark.lower(), code) for mark, code in FENCE.findall(text)]
    for marks in (("python", "python3", "py"), ("",)):
        for mark, code in blocks:
            if mark in marks:
                return textwrap.dedent(code)
    return text


def passes(code, asserts):
    job = {"code": code, "asserts": asserts, "seconds": TIMEOUT_SECONDS, "passed": PASSED_STATUS}
    with tempfile.TemporaryDirectory() as folder:
        child = subprocess.Popen(
            [sys.executable, "-I", "-c", RUNNER],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=folder,
            env={"PATH": os.defpath},
            start_new_session=True,
        )
        try:
            child.communicate((json.dumps(job) + "\n").encode(), timeout=TIMEOUT_SECONDS)
        except subprocess.TimeoutExpired:
            return False
        finally:
            # Processes that the answer started end with it.
            try:
                os.killpg(child.pid, signal.SIGKILL)
            except (ProcessLookupError, PermissionError):
                pass
            child.wait()
    return child.returncode == PASSED_STATUS


def is_right(question, answer):
    if not isinstance(answer, str):
        return False
    if "number" in question:
        number = last_number(answer)
        return number is not None and abs(number - question["number"]) <= question.get("tolerance", 0) + 1e-9
    if "letter" in question:
        return last_letter(answer) == question["letter"]
    if "object" in question:
        return equal(last_object(answer), question["object"])
    return passes(code_of(answer), question["asserts"])


def questions():
    with open(os.path.join(FOLDER, "questions.jsonl"), encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def self_test():
    number, near = {"number": 1200}, {"number": 8.045, "tolerance": 0.01}
    letter, negative = {"letter": "B"}, {"number": -5}
    mapping = {"object": {"a": 1, "b": [True, None], "c": {"d": "x"}}}
    code = {"asserts": ["assert f(2) == 4", "assert f(-1) == -2"]}
    good = "def f(n):\n    return 2 * n\n"
    samples = [
        (number, "3 * 400 = 1200", True),
        (number, "It is **1,200**.", True),
        (number, "1,200.00 euros", True),
        (number, r"\boxed{1{,}200}\text{ cm}^2", True),
        (number, "1200 cm^{2}, or 1200 m2", True),
        (number, "1.2e3", True),
        (number, "1200, or rather 1201", False),
        (number, "-1200", False),
        (number, "twelve hundred", False),
        (number, "", False),
        (number, None, False),
        (number, "1" * 5000, False),
        (near, "8.05 km", True),
        (near, "8.045.", True),
        (near, "8", False),
        (negative, "3 - 8 = -5", True),
        (negative, "\u22125", True),
        (negative, "10-5", False),
        ({"number": 5}, "10-5=5", True),
        ({"number": 0.5}, "about .5", True),
        (letter, "B", True),
        (letter, "The answer is (B).", True),
        (letter, "Not A. **B) Paris**", True),
        (letter, "B or C", False),
        (letter, "b", False),
        (letter, "Because", False),
        (letter, "", False),
        (mapping, '{"c": {"d": "x"}, "b": [true, null], "a": 1.0}', True),
        (mapping, 'Here: {no}\n```json\n{"a": 1, "b": [true, null],\n "c": {"d": "x"}}\n```\nDone.', True),
        (mapping, '{"a": 2} {"a": 1, "b": [true, null], "c": {"d": "x"}}', True),
        (mapping, '{"a": 1, "b": [true, null], "c": {"d": "x"}} {"a": 2}', False),
        (mapping, '{"a": true, "b": [true, null], "c": {"d": "x"}}', False),
        (mapping, '{"a": "1", "b": [true, null], "c": {"d": "x"}}', False),
        (mapping, '{"a": 1, "b": [true, null], "c": {"d": "x"}, "e": 0}', False),
        (mapping, '{"a": 1, "b": [null, true], "c": {"d": "x"}}', False),
        (mapping, '{"a": 1, "b": [true, null], "c": {"d": "x"}', False),
        (mapping, '{"a":' * 3000, False),
        (mapping, "[]", False),
        (code, good, True),
        (code, f"Sure:\n```python\n{good}```\nUse it:\n```python\nprint(f(1))\n```", True),
        (code, f"```bash\nls\n```\n```\n{good}```", True),
        (code, f"```Python\n{good}", True),
        (code, "1. So:\n   ```python\n   def f(n):\n       return 2 * n\n   ```", True),
        (code, f"```py\n{good}if __name__ == '__main__':\n    input()\n```", True),
        (code, f"```python\n{good}print('x' * 10 ** 6)\n```", True),
        (code, "```python\ndef f(n):\n    return n * n\n```", False),
        (code, "```python\ndef g(n):\n    return 2 * n\n```", False),
        (code, "```python\ndef f(n)\n    return 2 * n\n```", False),
        (code, "def f(n):\n    while True:\n        pass", False),
        (code, "import time\ndef f(n):\n    time.sleep(60)", False),
        (code, "def f(n):\n    return [0] * 10 ** 10", False),
        (code, "raise SystemExit(0)", False),
        (code, "import os\nos._exit(0)", False),
        (code, "input()\n" + good, False),
        (code, "I can't help with that.", False),
        (code, "\ud800", False),
        (code, "\0", False),
        (code, "", False),
    ]
    failures = [(answer, right) for question, answer, right in samples if is_right(question, answer) != right]
    for answer, right in failures:
        print(f"should be {'right' if right else 'wrong'}: {str(answer)[:200]!r}", file=sys.stderr)
    checks = {"number": str, "letter": str, "object": json.dumps}
    all_questions = questions()
    for index, question in enumerate(all_questions):
        check = [key for key in ("number", "letter", "object", "asserts") if key in question]
        is_valid = len(check) == 1 and not is_right(question, "")
        if is_valid and check[0] in checks:
            is_valid = is_right(question, checks[check[0]](question[check[0]]))
        if not is_valid:
            failures.append((index, question))
            print(f"question {index} does not accept its own answer", file=sys.stderr)
    if len({question["question"] for question in all_questions}) != len(all_questions):
        failures.append("duplicate")
        print("the file contains a question twice", file=sys.stderr)
    print(f"{len(samples)} samples, {len(all_questions)} questions, {len(failures)} failures")
    return 1 if failures else 0


def main():
    if sys.argv[1:] == ["--self-test"]:
        return self_test()
    if sys.argv[1:]:
        print(__doc__, file=sys.stderr)
        return 2
    all_questions = questions()
    for line in sys.stdin:
        if not line.strip():
            continue
        answer = json.loads(line)
        index = answer["index"]
        if not 0 <= index < len(all_questions):
            print(f"there is no question {index}", file=sys.stderr)
            return 2
        print(json.dumps({"index": index, "right": is_right(all_questions[index], answer["answer"])}), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
