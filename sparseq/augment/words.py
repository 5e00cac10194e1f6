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
very too so just only even also still yet already again ever always sometimes quite rather
really pretty well here there now then else away back together apart far further indeed
much better best worse worst
"""
_AUXILIARIES = """
am is are was were be been being have has had having do does did doing done can could may might must shall should
will would ought need needs dare used
"""
# Verbs with so many meanings that none of them is a safe guess.
_LIGHT_VERBS = """
get gets got gotten getting go goes went gone going make makes made making take takes took taken taking come comes
came coming give gives gave given giving put puts putting let lets letting keep keeps kept keeping set sets run runs
ran running turn turns turned turning look looks looked looking seem seems seemed feel feels felt feeling say says
said saying know knows knew known think thinks thought see sees saw seen seeing want wants wanted find finds found
become becomes became becoming tell tells told telling work works worked working play plays played playing
"""

# Base forms whose most frequent sense in WordNet's annotated texts (mostly prose of 1961) is not what they mostly mean
# elsewhere ("director": a manager; "gritty": granular; "live": inhabit). Found by reading what the rules replaced in
# SST-2's training sentences, which are from film reviews: other kinds of text may need other words.
_DATED = """
absolutely alien artifice boast bunch career central cheap collection conquer consistently contrivance cross delicious
director disturbing doings edgy effect emotional evocative examination exquisite extra fabric fellow full glee great
gritty hilarity imagine integrity intention later level live main manner manners mill mixed original outing outrageous
perfectly premise product project psychological recent recommend redundant religious remake repetitive satire savvy
simply special spiritual state static sterling style tear transcend true tub use vivid weird wry
"""
# Correct synonyms that are offensive or very rare in present-day writing. Found in the same way.
_AVOIDED = """
bask bloke brag commiseration curse damned delicious devilment disregardless environ everlastingly fella forthwith
gayly glee goddam goddamned granular hilarity imbecile ism laurels lifelike mischief motorcar multitudinous oftentimes
perfectly petite populate presently queer rupture sallow savvy someplace specifically stylemark totality unluckily
unnumbered unusually upshot vernal wearisome withal wondrous
"""
# After these comes a noun or an adjective, not a verb.
_NOUN_MARKERS = "a an the my your his its our their whose every each some any no of these those"
# After these comes a verb, not a noun.
_SUBJECTS = "i you he she we they who"
# After these comes a verb, or an adverb and a verb.
_MODALS = "can could may might must shall should will would do does did don doesn didn n't ca wo"
# After these comes an adjective or an adverb.
_INTENSIFIERS = "very so too quite rather really pretty more most less least how as extremely truly"
# Before these comes the noun that a determiner or an adjective belongs to.
_NOUN_FOLLOWERS = "of is are was were has had that which who whose 's"
# The object of a verb begins with a noun marker or one of these.
_OBJECTS = "me you him it us them this that these those"
# An adverb before one of these strengthens the negation, which few others do: "simply no", "not".
_DENIALS = "no not nothing never none n't"
_WEAKENING = "excess excessively less moderately most no not slightly too without"

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
MODALS = frozenset(_MODALS.split())
INTENSIFIERS = frozenset(_INTENSIFIERS.split())
NOUN_FOLLOWERS = frozenset(_NOUN_FOLLOWERS.split())
OBJECT_STARTS = frozenset(f"{_NOUN_MARKERS} {_OBJECTS}".split())
# Heads of clusters whose members are alternatives, not similar in meaning.
ENUMERATING = frozenset(["cardinal", "ordinal", "chromatic", "achromatic"])
DENIALS = frozenset(_DENIALS.split())
# In a definition these say that the word has not the same meaning as the others: "tepid" is "moderately warm".
WEAKENING = frozenset(_WEAKENING.split())
# A word before one of these governs it ("rely on", "full of", "come up"), and a synonym may govern another.
GOVERNED = frozenset(f"{_PREPOSITIONS} that away back together apart what how whether".split())
