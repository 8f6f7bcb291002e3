"""What a study is made of: its definition and contrasts, its recipe, its cells."""
