"""A Qt window fed by a thread.

    python examples/qt_window.py ENGINE SOURCE [FRAMES]

The thread runs `t.stream` and sends each picture as a signal; Qt shows it in its own thread. The network runs without
Python's lock, so the window stays responsive.
"""

from __future__ import annotations

import sys

import gantrt
from gantrt.video import First, open_source
from PySide6.QtCore import QThread, Signal
from PySide6.QtGui import QCloseEvent, QImage, QPixmap
from PySide6.QtWidgets import QApplication, QLabel


class Translation(QThread):
    """Emits each translated frame of a source, and its latency in milliseconds."""

    made = Signal(QImage, float)

    def __init__(self, engine: str, spec: str, frames: int) -> None:
        super().__init__()
        self._engine, self._spec, self._frames = engine, spec, frames

    def run(self) -> None:
        with gantrt.load(self._engine) as t, open_source(self._spec) as source:
            for item in t.stream(First(source, self._frames) if self._frames else source):
                height, width, _ = item.image.shape
                picture = QImage(item.image.data, width, height, 3 * width, QImage.Format.Format_RGB888)
                self.made.emit(picture.copy(), item.latency_ms)  # Qt keeps it longer than we keep the array
                if self.isInterruptionRequested():
                    break


class Window(QLabel):
    def __init__(self, translation: Translation) -> None:
        super().__init__("loading ...")
        self._translation, self.shown = translation, 0
        translation.made.connect(self.show_frame)
        translation.finished.connect(self.close)

    def show_frame(self, picture: QImage, latency: float) -> None:
        self.setPixmap(QPixmap.fromImage(picture))
        self.setWindowTitle(f"gantrt: {latency:.1f} ms")
        self.shown += 1

    def closeEvent(self, event: QCloseEvent) -> None:
        self._translation.requestInterruption()
        self._translation.wait()
        super().closeEvent(event)


def main(engine: str, spec: str, frames: str = "0") -> None:
    application = QApplication([])
    translation = Translation(engine, spec, int(frames))
    window = Window(translation)
    window.show()
    translation.start()
    application.exec()
    print(f"{window.shown} frames shown")


if __name__ == "__main__":
    main(*sys.argv[1:])
