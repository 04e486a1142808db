"""What the chapters of the book share: figures, exercises, numbers in sentences, and widgets."""

__all__ = ["exercises", "plotting", "widgets", "wording"]
