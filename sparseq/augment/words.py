"""Word lists of the synonym augmenter: words that are never replaced, words that never replace, and context cues."""

_DETERMINERS = """
a an the this that these those each every either neither both all any some no none another other such same own
my your his her its our their mine yours hers ours theirs whose what which whatever whichever
one two three four five six seven eight nine ten first second third last next once twice half many much few little
several most more less least enough lots plenty
"""
_PRONOUNS = """
i me you he him she it we us they them who whom myself yourself himself herself itself ourselves yourselves
themselves somebody someone something anybody anyone anything everybody everyone everything nobody nothing
thing things stuff kind kinds sort sorts lot way ways
"""
_NEGATIONS = """
not never nor neither hardly barely scarcely rarely seldom without lack lacks lacking lacked fail fails failed failing
cannot ain isn aren wasn weren don doesn didn won wouldn shouldn couldn can't hasn haven hadn ca wo nt
"""
_PREPOSITIONS = """
about above across after against along amid among around as at before behind below beneath beside besides between
beyond but by despite down during except for from in inside into like near of off on onto out outside over past per
round since than through throughout till to toward towards under until unto up upon versus via with within worth
"""
_CONJUNCTIONS = """
and or if because although though while whereas unless whether when whenever where wherever why how however
therefore thus hence moreover nonetheless nevertheless otherwise instead
"""
_ADVERBS = """
very too so just only even also still yet already again ever always often sometimes almost nearly quite rather
really pretty well here there now then else away back together apart far further maybe perhaps indeed
much better best worse worst
"""
_AUXILIARIES = """
am is are was were be been being have has had having do does did doing done can could may might must shall should
will would ought need needs dare used
"""
# Verbs with so many meanings that no one of them is a safe guess.
_LIGHT_VERBS = """
get gets got gotten getting go goes went gone going make makes made making take takes took taken taking come comes
came coming give gives gave given giving put puts putting let lets letting keep keeps kept keeping set sets run runs
ran running turn turns turned turning look looks looked looking seem seems seemed feel feels felt feeling say says
said saying know knows knew known think thinks thought see sees saw seen seeing want wants wanted find finds found
become becomes became becoming tell tells told telling work works worked working play plays played playing
"""

# Base forms whose most frequent sense in WordNet's annotated texts (mostly prose of 1961) is not what they mostly mean
# elsewhere ("director": a manager; "gritty": granular; "live": inhabit). Found by reading what the rules replaced.
_DATED = """
alien boast bunch career central cheap collection conquer consistently cross delicious director disturbing edgy
effect examination extra fabric fellow gritty imagine integrity live manner manners mill mixed outing outrageous product
project recommend redundant religious remake repetitive savvy spiritual state static sterling style tear transcend tub
use vivid wry
"""
# Correct synonyms that are offensive, or that hardly anyone writes.
_AVOIDED = """
bask bloke brag commiseration curse damned devilment disregardless environ everlastingly fella forthwith gayly goddam
goddamned granular imbecile ism laurels lifelike mischief motorcar multitudinous oftentimes populate queer rupture
sallow someplace stylemark totality unluckily unnumbered upshot vernal wearisome withal wondrous
"""
# After these comes a noun or an adjective, not a verb.
_NOUN_MARKERS = "a an the my your his its our their whose every each some any no of these those"
# After these comes a verb, not a noun.
_SUBJECTS = "i you he she we they who"

AUXILIARIES = frozenset(f"{_AUXILIARIES} to not n't".split())
STOP_WORDS = frozenset(
    " ".join(
        (_DETERMINERS, _PRONOUNS, _NEGATIONS, _PREPOSITIONS, _CONJUNCTIONS, _ADVERBS, _AUXILIARIES, _LIGHT_VERBS)
    ).split()
)
DATED_SENSES = frozenset(_DATED.split())
AVOIDED = frozenset(_AVOIDED.split())
NOUN_MARKERS = frozenset(_NOUN_MARKERS.split())
SUBJECTS = frozenset(_SUBJECTS.split())
# A word before one of these governs it ("rely on", "full of", "come up"), and a synonym may govern another.
GOVERNED = frozenset(f"{_PREPOSITIONS} that away back together apart what how whether".split())
