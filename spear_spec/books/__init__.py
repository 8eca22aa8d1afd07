"""Books read aloud: text, Markdown and EPUB to one file with chapters, resumed where it was stopped."""

from spear_spec.books.book import Book, Chapter, Cover
from spear_spec.books.open import SUFFIXES, open_book
from spear_spec.books.speak import Spoken, speak_book
from spear_spec.books.write import FORMATS

__all__ = ["FORMATS", "SUFFIXES", "Book", "Chapter", "Cover", "Spoken", "open_book", "speak_book"]
