"""Word lists for the inflection rules: facts that follow neither from spelling nor from WordNet's exception lists."""

# Not in the exception lists, because their past equals their base form.
_UNCHANGED = """
beat beset bet bid broadcast burst bust cast cost cut fit forecast hit hurt input inset knit let lipread miscast misread
offset outbid output overbid overspread preset proofread put quit read rebroadcast recast recut reread reset rid set
shed shut simulcast slit spit split spread sublet sweat telecast thrust typecast typeset undercut underbid upset wed wet
"""
# Their participle equals their base form: "had overcome".
_BASE_PARTICIPLES = "become come outrun overcome overrun rerun run"
# The exception lists have a form that is now rare or an adjective ("wrought", "molten"); the regular one is used.
_REGULAR_PASTS = """
address bless burn bypass clothe curse dive dream geld gild learn melt rap seed shave sneak spill spoil spotlight
squeegee transfix weed work
"""
_REGULAR_PLURALS = "ban bandit brother cow genius pea soprano"
# Nouns with one form for both numbers, or two plurals of different meaning, or an irregular plural that is not listed.
_NO_PLURAL = """
aircraft bison chassis craft debris deer fish moose offspring passerby rendezvous salmon sheep shrimp spacecraft trout
"""
# Nouns in -man whose plural is in -mans.
_MANS = "caiman german hetman human norman ottoman roman shaman talisman"
# Nouns in -ch pronounced k: "stomachs".
_HARD_CH = """
almanach amphibrach bach broch coronach cromlech czech diptych distich epoch eunuch loch mach moloch pentateuch pibroch
sassenach stomach sumach tech triptych
"""
# Nouns and verbs in -arch with ch as in "church"; in all others it is pronounced k: "monarchs".
_SOFT_ARCH = """
arch cornstarch countermarch frogmarch larch march outmarch overarch parch research routemarch search starch
"""
# A doubled consonant in spite of several syllables, which no exception list has.
_DOUBLING = "instil"
# With an e before -ing, to differ from forms of "sing" or "ting".
_KEEPING_E = "singe swinge tinge"

UNCHANGED_VERBS = frozenset(_UNCHANGED.split())
BASE_PARTICIPLES = frozenset(_BASE_PARTICIPLES.split())
REGULAR_PASTS = frozenset(_REGULAR_PASTS.split())
REGULAR_PLURALS = frozenset(_REGULAR_PLURALS.split())
NO_PLURAL = tuple(_NO_PLURAL.split())
MANS = tuple(_MANS.split())
HARD_CH = frozenset(_HARD_CH.split())
SOFT_ARCH = frozenset(_SOFT_ARCH.split())
DOUBLING = frozenset(_DOUBLING.split())
KEEPING_E = frozenset(_KEEPING_E.split())
