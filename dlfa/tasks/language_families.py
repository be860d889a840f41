"""Language families and scripts of the tasks' languages.

Families follow XTREME's table: branches of Indo-European are separate, because most of the languages belong to one.
Scripts are those of the tasks' data: in UniversalNER, Serbian and Maghrebi Arabic (code qaf) are in Latin letters.
"""

from __future__ import annotations

from dataclasses import dataclass

UNKNOWN = "unknown"


@dataclass(frozen=True)
class Language:
    """A language: ISO 639 code, English name, family and script."""

    code: str
    name: str
    family: str
    script: str


# By family: code, name, script.
_BY_FAMILY: dict[str, tuple[tuple[str, str, str], ...]] = {
    "IE: Germanic": (
        ("af", "Afrikaans", "Latin"),
        ("da", "Danish", "Latin"),
        ("de", "German", "Latin"),
        ("en", "English", "Latin"),
        ("nb", "Norwegian Bokmål", "Latin"),
        ("nl", "Dutch", "Latin"),
        ("nn", "Norwegian Nynorsk", "Latin"),
        ("sv", "Swedish", "Latin"),
    ),
    "IE: Romance": (
        ("es", "Spanish", "Latin"),
        ("fr", "French", "Latin"),
        ("it", "Italian", "Latin"),
        ("pt", "Portuguese", "Latin"),
    ),
    "IE: Slavic": (
        ("bg", "Bulgarian", "Cyrillic"),
        ("hr", "Croatian", "Latin"),
        ("ru", "Russian", "Cyrillic"),
        ("sk", "Slovak", "Latin"),
        ("sr", "Serbian", "Latin"),
    ),
    "IE: Greek": (("el", "Greek", "Greek"),),
    "IE: Iranian": (("fa", "Persian", "Arabic"),),
    "IE: Indo-Aryan": (
        ("bn", "Bengali", "Bengali"),
        ("hi", "Hindi", "Devanagari"),
        ("mr", "Marathi", "Devanagari"),
        ("ur", "Urdu", "Arabic"),
    ),
    "Uralic": (
        ("et", "Estonian", "Latin"),
        ("fi", "Finnish", "Latin"),
        ("hu", "Hungarian", "Latin"),
    ),
    "Turkic": (
        ("kk", "Kazakh", "Cyrillic"),
        ("tr", "Turkish", "Latin"),
    ),
    "Afro-Asiatic": (
        ("ar", "Arabic", "Arabic"),
        ("he", "Hebrew", "Hebrew"),
        ("qaf", "Maghrebi Arabic", "Latin"),
    ),
    "Dravidian": (
        ("ml", "Malayalam", "Malayalam"),
        ("ta", "Tamil", "Tamil"),
        ("te", "Telugu", "Telugu"),
    ),
    "Kartvelian": (("ka", "Georgian", "Georgian"),),
    "Sino-Tibetan": (
        ("my", "Burmese", "Myanmar"),
        ("zh", "Chinese", "Han"),
    ),
    "Japonic": (("ja", "Japanese", "Japanese"),),
    "Koreanic": (("ko", "Korean", "Hangul"),),
    "Kra-Dai": (("th", "Thai", "Thai"),),
    "Austro-Asiatic": (("vi", "Vietnamese", "Latin"),),
    "Austronesian": (
        ("ceb", "Cebuano", "Latin"),
        ("id", "Indonesian", "Latin"),
        ("jv", "Javanese", "Latin"),
        ("ms", "Malay", "Latin"),
        ("tl", "Tagalog", "Latin"),
    ),
    "Niger-Congo": (
        ("sw", "Swahili", "Latin"),
        ("yo", "Yoruba", "Latin"),
    ),
    "Basque (isolate)": (("eu", "Basque", "Latin"),),
}
LANGUAGES: dict[str, Language] = {
    row[0]: Language(row[0], row[1], family, row[2]) for family, rows in _BY_FAMILY.items() for row in rows
}
FAMILIES: tuple[str, ...] = tuple(_BY_FAMILY)


def language(code: str) -> Language:
    """Return the language of a code.

    If it is not listed (such as made-up languages), family and script are `UNKNOWN` and the name is the code.
    """
    return LANGUAGES.get(code, Language(code, code, UNKNOWN, UNKNOWN))


def by_family(code: str) -> tuple[int, str]:
    """Return a sorting key that groups languages by family, in the order of `FAMILIES`, unknown ones last."""
    family = language(code).family
    return (FAMILIES.index(family) if family in FAMILIES else len(FAMILIES), code)
