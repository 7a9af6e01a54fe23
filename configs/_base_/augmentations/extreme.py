# Heavy, and mild elastic bending, grey rectangles and fog (docs/augmentation.md).
augmentation = 'extreme'
