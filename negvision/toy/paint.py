"""Colors and light of the embedded pictures."""

import numpy as np

_LUMINANCE = np.array([0.114, 0.587, 0.299], dtype=np.float32)  # of BGR


def contrasting_color(rng: np.random.Generator, window: np.ndarray) -> np.ndarray:
    """A BGR color clearly darker or lighter than the pixels it is painted on."""
    luminance = window @ _LUMINANCE
    mean, spread = float(luminance.mean()), float(luminance.std())
    gap = 75 + spread
    lighter, darker = mean + gap <= 245, mean - gap >= 10
    if lighter and darker:
        lighter = rng.random() < 0.5
    elif not lighter and not darker:
        lighter = mean < 128
    level = (
        rng.uniform(min(mean + gap, 245), 252) if lighter else rng.uniform(5, max(10, mean - gap))
    )
    tint = rng.uniform(-1, 1, size=3).astype(np.float32)
    tint -= tint @ _LUMINANCE
    return np.clip(level + rng.uniform(0, 70) * tint, 0, 255).astype(np.float32)


def uneven_light(rng: np.random.Generator, image: np.ndarray) -> np.ndarray:
    """Uneven light and sensor noise over the whole picture."""
    side = image.shape[0]
    slope_y, slope_x = rng.uniform(-0.12, 0.12, size=2)
    ramp = np.linspace(-1, 1, side, dtype=np.float32)
    image = image * (1 + slope_y * ramp[:, None, None] + slope_x * ramp[None, :, None])
    image += rng.uniform(0, 5) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)
