# Light, and shift, scale and small rotation with reflected borders, brightness and contrast, hue and saturation
# (docs/augmentation.md).
augmentation = 'medium'
