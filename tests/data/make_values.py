"""Writes values.tsv: what other libraries say about sample values and their mutations.

    python3 -m venv /tmp/v && /tmp/v/bin/pip install python-stdnum==2.2 phonenumbers==9.0.43
    /tmp/v/bin/python tests/data/make_values.py            # a few hundred lines, the ones that are committed
    /tmp/v/bin/python tests/data/make_values.py --all FILE # every sample, to measure

Columns: kind, input (JSON), region or "-", verdict, normal form or "-". Verdicts: `ok` (accepted by both, same form), `bad`
(refused by both), and where the crate means to differ, `ours-ok` with its form or `ours-bad`, with the reason as a sixth
column. The rules for differing are in `verdict_*` below. What --all leaves over: phonenumbers strips the carrier codes of China (+86 179...) and Brazil, and
knows the lengths of countries for which the crate has no plan, and
which it therefore reads after a plus only.
"""

import json
import pathlib
import random
import re
import sys

import phonenumbers
from stdnum import iban, luhn
from stdnum.cn import ric
from stdnum.exceptions import InvalidComponent, ValidationError

HERE = pathlib.Path(__file__).parent
DATA = HERE.parent.parent / "examples" / "data"
REGIONS = dict(
    line.rsplit(" ", 1)
    for line in """Argentina AR,Australia AU,Austria AT,Belgium BE,Brazil BR,Canada CA,Chile CL,Czech Republic CZ,Denmark DK,\
Finland FI,France FR,Germany DE,Hungary HU,India IN,Ireland IE,Italy IT,Netherlands NL,Norway NO,Poland PL,Portugal PT,\
Spain ES,Sweden SE,United Kingdom GB,USA US""".split(",")
)


def rows(name):
    return [json.loads(line) for line in (DATA / name).read_text().splitlines()]


def verdict_phone(text, region):
    try:
        number = phonenumbers.parse(text, region)
        why = phonenumbers.is_possible_number_with_reason(number)
    except phonenumbers.NumberParseException:
        number, why = None, None
    digits = re.sub(r"\D", "", re.split("[x#e]", text)[0])
    if region in ("US", "CA") and re.match("001[0-9]{10}$", digits):
        return "ours-ok", "+" + digits[2:] + extension(text), "00 before a North American number, as it is often written"
    if re.search("[A-Za-z]", re.sub("(?i)(ext[.]?|x) *[0-9]+$", "", text)):
        return "bad" if number is None else "ours-bad", None, "letters for digits are refused"
    if why in (phonenumbers.ValidationResult.IS_POSSIBLE, phonenumbers.ValidationResult.IS_POSSIBLE_LOCAL_ONLY):
        e164 = phonenumbers.format_number(number, phonenumbers.PhoneNumberFormat.E164)
        if why == phonenumbers.ValidationResult.IS_POSSIBLE_LOCAL_ONLY:
            return "ours-bad", None, "a local number without its area code cannot be dialled from elsewhere"
        if len(e164) > 16:
            return "ours-bad", None, "more than fifteen digits"
        if text.startswith("++"):
            return "ours-bad", None, "two plus signs"
        if re.search("[(][^)]*([(]|$)|^[^(]*[)]|[)][^(]*[)]", text):
            return "ours-bad", None, "brackets that do not close"
        if digits.startswith("00") and text[0] != "+" and number.country_code == phonenumbers.country_code_for_region(region):
            return "ours-bad", None, "two zeros that are no way abroad"
        return "ok", e164 + extension(text), None
    return "bad", None, None


def extension(text):
    found = re.search(r"(?i)(?:x|ext\.?|#) *(\d{1,9})$", text)
    return "x" + found[1] if found else ""


def verdict_ric(text):
    try:
        return "ok", ric.validate(text), None
    except InvalidComponent:
        # A county that python-stdnum does not know, or not in that year, with date and check character right.
        try:
            ric.get_birth_date(text)
        except ValidationError:
            return "bad", None, None
        return "ours-ok", ric.compact(text), "counties come and go: only the province is checked"
    except (ValidationError, ValueError):
        return "bad", None, None


def verdict_luhn(text):
    compact = text.replace(" ", "").replace("-", "")
    ok = luhn.is_valid(compact) and compact.isascii()
    if ok and not 12 <= len(compact) <= 19:
        return "ours-bad", None, "not 12 to 19 digits"
    if ok and re.search("[ -]{2}|^[ -]|[ -]$", text):
        return "ours-bad", None, "a separator that stands alone between digits"
    return ("ok", compact, None) if ok else ("bad", None, None)


def verdict_iban(text):
    try:
        normal = iban.validate(text, check_country=False)
    except ValidationError:
        return "bad", None, None
    if normal.startswith(("HN", "PK")):
        return "ours-bad", None, "iban_validate 5.0.1 knows no country HN, and an older layout of PK"
    if re.search("[ -]{2}|^[ -]|[ -]$|[^A-Za-z0-9 -]", text):
        return "ours-bad", None, "a separator that stands alone between characters"
    return "ok", normal, None


def mutations(rng, text, alphabet):
    """One character changed, dropped, doubled, two swapped, and something added at an end."""
    at = rng.randrange(len(text))
    yield text[:at] + rng.choice(alphabet) + text[at + 1 :]
    yield text[:at] + text[at + 1 :]
    yield text[: at + 1] + text[at:]
    if at + 1 < len(text):
        yield text[:at] + text[at + 1] + text[at] + text[at + 2 :]
    yield rng.choice(alphabet) + text
    yield text + rng.choice(alphabet)


def ibans(rng):
    """One of each layout that both libraries know, random inside, with right check digits."""
    for line in pathlib.Path(iban.__file__).with_name("iban.dat").read_text().splitlines():
        found = re.match(r'([A-Z]{2}) .*bban="([^"]+)"', line)
        if not found:
            continue
        body = ""
        for count, kind in re.findall(r"(\d+)!?([nac])", found[2]):
            letters = {"n": "0123456789", "a": "ABCDEFGHIJKLMNOPQRSTUVWXYZ", "c": "0123456789ABCDEFGHIJ"}[kind]
            body += "".join(rng.choice(letters) for _ in range(int(count)))
        yield found[1] + iban.calc_check_digits(found[1] + "00" + body) + body


def main():
    everything = "--all" in sys.argv
    rng = random.Random(19990701)
    customers, chinook = rows("customers.jsonl"), rows("chinook-customers.jsonl")
    seen, out = set(), []

    def add(kind, text, region, verdict):
        if (kind, text, region) not in seen:
            seen.add((kind, text, region))
            verdict, normal, why = verdict
            line = [kind, json.dumps(text), region or "-", verdict, normal if normal and verdict.endswith("ok") else "-"]
            out.append("\t".join(line + ([why] if why and verdict.startswith("ours") else [])))

    ids = [row["national_id"] for row in customers if row["national_id"]]
    cards = [row["card"] for row in customers if row["card"]]
    phones = [(row["phone"], row["country"]) for row in customers]
    shop = [(row[k], REGIONS[row["country"]]) for row in chinook for k in ("phone", "fax") if row[k]]
    if not everything:
        shapes = {(re.sub("[0-9]", "9", text), region): text for text, region in phones}
        phones = [(text, region) for (_, region), text in sorted(shapes.items())]
        ids, cards = rng.sample(ids, 20), rng.sample(cards, 20)
    for text in ids:
        for mutant in [text, text.lower(), *mutations(rng, text, "0123456789Xx")]:
            add("ric", mutant, None, verdict_ric(mutant))
    for text in cards:
        spaced = " ".join(text[at : at + 4] for at in range(0, len(text), 4))
        for mutant in [text, spaced, *mutations(rng, spaced, "0123456789 -x")]:
            add("card", mutant, None, verdict_luhn(mutant))
    for text in ibans(rng):
        spaced = " ".join(text[at : at + 4] for at in range(0, len(text), 4))
        mutants = [spaced, *mutations(rng, text, "0123456789AZ")]
        for mutant in [text, *(mutants if everything else rng.sample(mutants, 2))]:
            add("iban", mutant, None, verdict_iban(mutant))
    for text, region in phones + shop:
        add("phone", text, region, verdict_phone(text, region))
        if everything or rng.random() < 0.5:
            for mutant in rng.sample(list(mutations(rng, text, "0123456789")), 2):
                add("phone-mutant", mutant, region, verdict_phone(mutant, region))
    target = pathlib.Path(sys.argv[-1]) if everything else HERE / "values.tsv"
    target.write_text("\n".join(out) + "\n")


main()
