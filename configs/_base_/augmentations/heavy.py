# Medium, and shadows, gamma, local contrast (CLAHE) and mild JPEG (docs/augmentation.md).
augmentation = 'heavy'
