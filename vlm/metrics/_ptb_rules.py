"""The rules of the PTB tokenizer: patterns in order of precedence, each with what becomes of the matched text.

A rule matches a token and, for some, what must follow it (the look-ahead). `lex` in `ptb_tokenizer` takes the rule
whose token and look-ahead together are longest, and the first of equals, so the order of the calls below matters.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import cache
from typing import NamedTuple

from vlm.metrics._ptb_chars import DIGITS, LETTERS, MARKS, SYMBOLS, char_class

# Abbreviations that keep their period. Those of the first group win over a longer word ("co.uk" is a word, "co.x" is
# not) because their rule looks two characters ahead.
_FIRM = (
    "al ala apr ariz assn aug bhd bldg blvd bros calif co colo conn corp cos ct dak dec esq est etc ext feb fla fri ga "
    "inc ind intl jan jr jul jun kan kans ky ltd mar md mich minn mo mon mont neb nev nov oct okla penn plc rd rt sep "
    "sept seq sq sr sys tel tenn thu thurs tue tues univ va vt wed wis wisc wyo"
)
_FIRM_AS_WRITTEN = "(?i:p?pt)[ey][sS]?"
_FIRM_CAPITALISED = "ark az del ill la mass miss ore pa tex wash"
_LOOSE = (
    "adj adm adv alex assoc asst atty attys ave brig capt cf cie cmdr col comdr cpl dept det dr drs elec ens ft gen "
    "gov govs hon insp invt jos lieut lt maj messrs mlle mme mr mrs ms msgr mt natl pfc ph pres prof profs pvt rep "
    "reps rev sen sens sfc sgt spc st ste supt treas vs wm"
)
_LOOSE_AS_WRITTEN = "[Mm][ft][gG]"
_BEFORE_A_NUMBER = "art ca fig figs no nos op pp prop"
_TWO = ("can not", "gon na", "wan na", "got ta", "lem me", "gim me")  # written as one word
_STARTERS = (
    "A About According Additionally After An As At But Earlier He Her Here However If In It Last Many More Now Once "
    "One Other Our She Since So Some Such That The Their Then There These They This We What When While Yet You"
)
# Words with an apostrophe of any form, and those where it must be the typewriter's.
_INFORMAL, _INFORMAL_PLAIN = "cap'n c'est dunkin' ol' somethin'", "c'mon e'er ev'ry li'l nat'l nor'easter s'mores"
_EXTENSIONS = (
    "bat bmp c cgi class cpp dll doc docx exe gif gz h htm html jar java jpeg jpg mov mp3 pdf php pl png ppt ps py sql "
    "tar txt wav x xml zip"
)

_CURRENCY = {"\xa2": "cents", "\xa3": "#", "\x80": "$", "\xa4": "$", "\u20a0": "$", "\u20ac": "$"}
_FRACTIONS = {"\xbc": "1/4", "\xbd": "1/2", "\xbe": "3/4", "\u2153": "1/3", "\u2154": "2/3"}
_BRACKETS = {"(": "-LRB-", ")": "-RRB-", "[": "-LSB-", "]": "-RSB-", "{": "-LCB-", "}": "-RCB-"}
_QUOTES = str.maketrans(
    {
        **dict.fromkeys("\x91\u2018\u201b\u2039", "`"),
        **dict.fromkeys("\x92\u2019\u203a", "'"),
        **dict.fromkeys("\x93\u201c\xab", "``"),
        **dict.fromkeys("\x94\u201d\xbb", "''"),
    }
)


class Rule(NamedTuple):
    """`pattern` has the token in group 1 and its look-ahead in group 2; `tidy` turns the one into what is written."""

    pattern: re.Pattern[str]
    tidy: Callable[[str], str] | None


def _any(words: str) -> str:
    return "|".join(sorted(words.split(), key=len, reverse=True))


def _no_break(text: str) -> str:
    return re.sub("[ \t\u2000-\u200a\u3000]", "\xa0", text)


def _round(text: str) -> str:
    return text.replace("(", "-LRB-").replace(")", "-RRB-")


def _phone(text: str) -> str:
    return _round(_no_break(text))


def _amp(text: str) -> str:
    return re.sub("&amp;", "&", text, flags=re.IGNORECASE)


def _straight(text: str) -> str:
    return text.replace("&apos;", "'").translate(_QUOTES)


def _unhyphenated(text: str) -> str:
    return text.replace("\xad", "") or "-"


# What may end a caption so that the next line says what becomes of its period: a lone letter, before a word that begins
# a sentence, or an abbreviation, before a number.
OPEN_END = re.compile(rf"(?<![A-Za-z])(?:[A-Za-z]|{_any(_BEFORE_A_NUMBER)})\.\Z", re.IGNORECASE)
OPEN_END_LETTERS = 2 + max(map(len, _BEFORE_A_NUMBER.split()))
"""Letters from the end in which that shows."""

# Words of ASCII letters alone, in lower case, that are two tokens, or that may keep the period behind them.
HALVED = frozenset(pair.replace(" ", "") for pair in _TWO)
ABBREVIATIONS = frozenset(
    f"{_FIRM} {_FIRM_CAPITALISED} {_LOOSE} {_BEFORE_A_NUMBER} mtg mfg pte pty ptes ptys ppte ppty pptes pptys a".split()
)


@cache
def rules(ascii_only: bool = False) -> tuple[Rule, ...]:
    """All rules, compiled on first use; those for text that is ASCII compile and match in a fraction of the time."""
    let, mark, dig, symbol = (char_class(table, ascii_only) for table in (LETTERS, MARKS, DIGITS, SYMBOLS))
    accent = "&[aeiouAEIOU](?i:acute|grave|uml);"
    letter, alnum = f"(?:[{let}{mark}]|{accent})", f"(?:[{let}{mark}{dig}]|{accent})"
    digit, firm = f"[{dig}]", f"[{let}{dig}]"
    gap = "[ \t\xa0\u2000-\u200a\u3000\n]"
    apos = "(?:['\x92\u2019]|(?i:&apos;))"  # closing; `either` takes an opening one or a back-tick too
    either = "(?:['`\x91\x92\u2018\u2019\u201b]|(?i:&apos;))"
    aux, nt = f"{apos}(?:[msdMSD]|(?i:re|ve|ll))", f"[nN]{either}[tT]"
    word = f"{letter}{alnum}*(?:[.!?]{letter}{alnum}*)*"
    point = "[.:,\xad\u066b\u066c]"
    number = f"[-+]?(?:{digit}+(?:{point}{digit}+)*|(?:{point}{digit}+)+)"
    thing = f"(?:[dDoOlL]{either}{firm})?{firm}+(?:[_\u058a\u2010\u2011-](?:[dDoOlL]{either}{firm})?{firm}+)*"
    joint = "[A-Z]+(?:(?:(?i:&amp;)|[+&])[A-Z]+)+"
    states = r"(?:Canada|Sino|Korean|EU|Japan|non)-U\.S|U\.S\.-(?:U\.K|U\.S\.S\.R)"
    acronym, long_acronym = rf"(?:[A-Za-z](?:\.[A-Za-z])*|{states})", rf"(?:[A-Za-z](?:\.[A-Za-z])+|{states})"
    chain = rf"[A-Za-z0-9][A-Za-z0-9.,\xad]*(?:-(?:{long_acronym}\.|[A-Za-z0-9\xad]+))+"
    capitalised = "|".join(f"{w[0].upper()}(?i:{w[1:]})" for w in _FIRM_CAPITALISED.split())
    firm_abbr = rf"(?:(?i:ph\.d|{_any(_FIRM)})|{capitalised}|{_any(_FIRM_AS_WRITTEN)})\."
    loose_abbr = rf"(?:(?i:{_any(_LOOSE)})|{_any(_LOOSE_AS_WRITTEN)})\."
    url_char, url_end = r'[^ \t\n\f\r"<>|()]', r'[^ \t\n\f\r"<>|.!?(){},-]'
    mail_char, mail_part = r'[^ \t\n\f\r"<>|(){}\xa0]', r'[^ \t\n\f\r"<>|(){}.\xa0]'
    name = "[A-Za-z][A-Za-z0-9_:.-]*"
    group, code = "[- \xa0]", "[0-9]{2,4}"
    out: list[Rule] = []

    def rule(token: str, ahead: str = "", tidy: Callable[[str], str] | None = None) -> None:
        out.append(Rule(re.compile(f"({token})(?=({ahead}))" if ahead else f"({token})()"), tidy))

    # words that are two
    for head, tail in map(str.split, _TWO):
        rule(f"(?i:{head})", f"(?i:{tail})")
    rule("'[tT]", "(?i:is|was)")
    # markup and entities
    value = r"""(?: *= *(?:'[^'\n]*'|"[^"\n]*"))?"""
    tag = rf"<(?:[!?][A-Za-z-][^>\n]*|/{name} *|{name}(?: +{name}{value})* */? *)>"
    rule(tag, tidy=_no_break)
    rule("(?i:&(?:md|mdash|ndash);)|[\x96\x97\u2013\u2014\u2015]", tidy=lambda _: "--")
    rule("(?i:&amp;)", tidy=_amp)
    rule("&(?i:HT|TL|UR|LR|QC|QL|QR|odq|cdq|#[0-9]+);")
    rule("(?i:&nbsp;)", tidy=lambda _: "")
    # words, with their clitics
    rule(word, aux, _unhyphenated)
    rule(rf"[A-Za-z\xad]*[A-MO-Za-mo-z\xad](?={nt})", nt, _unhyphenated)
    rule(word, tidy=_unhyphenated)
    # The two without an end come first: Python takes the first alternative that fits, the reference the longest.
    plain = f"[{let}]"
    informal = _any(_INFORMAL).replace("'", apos) + f"|{_any(_INFORMAL_PLAIN)}"
    rule(
        f"[A-HJ-XZn]{either}{plain}{plain}+|(?!\xad){plain}+[aeiouyAEIOUY]{either}[aeiouA-Z]{plain}*"
        f"|{apos}[nN]{apos}?|[lLdDjJ]{apos}|{apos}(?i:em|cause|till?)|{apos}[2-9]0[sS]|[oO]{either}[oO]|(?i:{informal})",
        tidy=_unhyphenated,
    )
    rule(f"[yY]{apos}", plain)
    # addresses
    rule(rf'(?i:https?)://[^ \t\n\f\r"<>|(){{}}]+{url_end}')
    host = r"""[^ \t\n\f\r"`'<>|.!?(){},-_$]"""  # the range from comma to underscore is the reference's
    site = rf'(?i:www)\.(?:[^ \t\n\f\r"<>|.!?(){{}},]+\.)+[a-zA-Z]{{2,4}}|(?:{host}+\.)+(?i:com|net|org|edu)'
    rule(f"(?:{site})(?:/{url_char}+{url_end})?")
    rule(rf"(?:&lt;|<)?[a-zA-Z0-9]{mail_char}*@(?:{mail_part}+\.)*{mail_part}+(?:&gt;|>)?")
    rule(f"@[a-zA-Z_][a-zA-Z_0-9]*|#{letter}+")
    rule(aux, "[^A-Za-z]", _straight)
    rule(nt, "[^A-Za-z]", _straight)
    # numbers
    rule(f"{digit}{{1,2}}[-/]{digit}{{1,2}}[-/]{digit}{{2,4}}|{digit}{{4}}[-/]{digit}{{1,2}}[-/]{digit}{{1,2}}")
    rule(number, tidy=_unhyphenated)
    rule("[\u207a\u207b\u208a\u208b]?(?:[\u2070\xb9\xb2\xb3\u2074-\u2079]+|[\u2080-\u2089]+)")
    rule(rf"(?:{digit}{{1,4}}[- \xa0])?{digit}{{1,4}}(?:\\?/|\u2044){digit}{{1,4}}", tidy=_no_break)
    rule("[\xbc\xbd\xbe\u2153\u2154]", tidy=_FRACTIONS.__getitem__)
    rule(r"(?i:-(?:[LR][RCS]B)-|C\.D\.s|pro-|anti-|S(?:&|&amp;)P-500|S&Ls)", tidy=_amp)
    rule(r"[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}(?:\\?/[A-Za-z0-9]+(?:-[A-Za-z]+){0,2}){1,2}")
    rule(r"[A-Z]*\$|#")
    rule("[\xa2-\xa5\x80\u20a0\u20ac\u060b\u0e3f\u20a4\uffe0\uffe1\uffe5\uffe6]", tidy=lambda t: _CURRENCY.get(t, t))
    # abbreviations
    rule(firm_abbr, r"[\s\S][\s\S]")
    rule(f"{firm_abbr}|{loose_abbr}")
    rule(rf"(?i:{_any(_BEFORE_A_NUMBER)})\.", f"{gap}?{digit}")
    starter = "|".join(f"{w[0]}(?i:{w[1:]})" for w in _STARTERS.split()) + r"|M(?i:r|s)\."
    rule("[A-Za-z]", rf"\.{gap}+(?:{starter}|{tag}){gap}")  # in "plan B. The" the period ends a sentence
    rule(rf"{acronym}\.", gap)
    rule(rf"{acronym}\.")
    rule(rf"{alnum}+(?:\.{alnum}+)*\.(?i:{_any(_EXTENSIONS)})", f"{gap}|[.?!,]")
    rule(f"{apos}[0-9][0-9]", gap)
    rule(rf"(?:{word}|{thing}|{chain}|{joint})\.", "[,;:\u3001]", lambda t: _unhyphenated(_amp(t)))
    rule(
        rf"(?:\([0-9]{{2,3}}\)[ \xa0]?|(?:\+\+?)?(?:{code}{group})?{code}{group})[0-9]{{3,4}}{group}?[0-9]{{3,5}}"
        rf"|(?:\+\+?)?(?:{code}\.)?{code}\.[0-9]{{3,4}}\.[0-9]{{3,5}}",
        tidy=_phone,
    )
    # punctuation and symbols
    rule('"|&quot;', tidy=lambda _: "''")
    rule("''?|[`\x91-\x94\u2018-\u201f\u2039\u203a\xab\xbb]{1,2}|&apos;", tidy=_straight)
    rule("(?i:&(?:quot|apos);)")  # in capitals they stay as they are
    rule("<<?|(?i:&lt;)", tidy=lambda t: t if t[0] == "<" else "<")
    rule(">>?|(?i:&gt;)", tidy=lambda t: t if t[0] == ">" else ">")
    rule(r"[<>]?[:;=]['*o-]?[)(DPdpO\\{@|\[\]]", "[^A-Za-z0-9]", _round)
    eye = r"[-\^x=~<>']"
    rule(rf"{eye}_{eye}|\({eye}[_.]?{eye}\)|\([\^x=~<>']-[\^x=~<>'`]\)", tidy=_round)
    rule(r"[()\[\]{}]", tidy=_BRACKETS.__getitem__)
    rule("-+", tidy=lambda t: "--" if len(t) in (3, 4) else t)
    rule("\\.{3,5}|(?:\\.[ \xa0]){2,4}\\.|[\x85\u2026]", tidy=lambda _: "...")
    rule("[,;:\u3001]|[?!]+|[.\xa1\xbf\u037e\u0589\u061f\u06d4\u0700-\u0702\u07fa\u3002]|[=/]")
    rule(thing)
    rule(chain, tidy=_unhyphenated)
    rule(joint, tidy=_amp)
    rule("'", "[A-Za-z][^ \t\n\r\xa0]", lambda _: "`")
    rule(f"{aux}|{nt}", tidy=_straight)
    rule(rf"[Cc]\+\+|[CcFf]#|\*+|_+|(?:\\\*)+|@+|#+|[\\+%&~|^{symbol}]")
    return tuple(out)
