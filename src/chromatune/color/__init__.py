"""Color arithmetic on arrays: exact luminance, chroma, and the two put together at full size.

luminance.py         Rec.601 luma and chroma, the gamut, the sRGB curve, how far luma drifted
recomposition.py     small chroma and a full-size gray ⇒ the photograph in color, with exactly its luma
restoration.py       full-size gray ⇒ the small copy that a model is shown, with faults of old photos repaired
alignment.py         a finished picture ⇒ its chroma as the photo needs it, and where it can be believed
flow.py              dense flow between two pictures, its confidence, pictures warped along it
correction_field.py  corrections at hints ⇒ a field of corrections that follows the luma
color_detection.py   whether a photo has color that is not a print's tone
versions.py          what a version adds to the chroma of the model, region by region
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
