# The eight flips and turns of a square (docs/augmentation.md).
augmentation = 'light'
