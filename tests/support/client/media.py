"""Beginnings of files, which say what they are."""

from __future__ import annotations

PNG = b"\x89PNG\r\n\x1a\n" + bytes(20)
JPEG = b"\xff\xd8\xff\xe0" + bytes(20)
GIF = b"GIF89a" + bytes(20)
WEBP = b"RIFF\x10\0\0\0WEBPVP8 " + bytes(20)
WAV = b"RIFF\x10\0\0\0WAVEfmt " + bytes(20)
MP3 = b"ID3\x04" + bytes(20)
MP3_FRAME = b"\xff\xfb\x90\x64" + bytes(20)
