"""Which nouns are defined from WordNet, and units of the project's own text."""

from __future__ import annotations

# Nouns whose first sense in WordNet is the everyday one, defined with an article.
WORDS = (
    "lamp", "chair", "house", "river", "mountain", "island", "lake", "forest", "garden",
    "village", "city", "ship", "boat", "bicycle", "clock", "watch", "spoon", "cup", "bottle",
    "potato", "poem", "newspaper", "letter", "farmer", "king", "hat", "umbrella", "coat",
    "telescope", "guitar", "drum", "trumpet", "dictionary", "soldier", "doctor", "flower", "seed",
    "volcano",
)
UNITS = (
    ("a minute", "60 seconds"), ("an hour", "60 minutes"), ("a day", "24 hours"),
    ("a week", "7 days"), ("a year", "12 months"), ("a century", "100 years"),
    ("a decade", "10 years"), ("a kilometre", "1000 metres"), ("a metre", "100 centimetres"),
    ("a centimetre", "10 millimetres"), ("a kilogram", "1000 grams"), ("a tonne", "1000 kilograms"),
    ("a litre", "1000 millilitres"), ("a dozen", "12 pieces"), ("a mile", "1609 metres"),
    ("a foot", "12 inches"), ("a yard", "3 feet"), ("a kilobyte", "1000 bytes"),
    ("a byte", "8 bits"), ("a hectare", "10000 square metres"),
)
