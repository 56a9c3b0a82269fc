"""A pygame window that draws at its own rate while the network works in another thread.

    python examples/pygame_window.py ENGINE SOURCE [FRAMES]

`submit` gives a future: the loop looks whether the frame is finished, draws the last one otherwise, and stays alive.
"""

from __future__ import annotations

import sys

import gantrt
import pygame
from gantrt.video import open_source


def main(engine: str, spec: str, frames: str = "0") -> None:
    pygame.init()
    drawn = translated = 0
    with gantrt.load(engine) as t, open_source(spec) as source:
        screen = pygame.display.set_mode((source.width, source.height), pygame.RESIZABLE)
        clock, waiting, picture = pygame.time.Clock(), None, None
        images = (frame.image for frame in source)
        while not any(event.type == pygame.QUIT for event in pygame.event.get()):
            if waiting is not None and waiting.done():
                picture, waiting = to_surface(waiting.result()), None
                translated += 1
                if translated == int(frames):
                    break
            if waiting is None:
                image = next(images, None)
                if image is None:
                    break
                waiting = t.submit(image)
            if picture is not None:
                screen.blit(pygame.transform.smoothscale(picture, screen.get_size()), (0, 0))
                pygame.display.set_caption(f"gantrt: {t.stats().total.p95:.1f} ms")
            pygame.display.flip()
            drawn += 1
            clock.tick(60)
    pygame.quit()
    print(f"{translated} frames translated, {drawn} drawn")


def to_surface(image: gantrt.arrays.Frame) -> pygame.Surface:
    height, width = image.shape[:2]
    return pygame.image.frombuffer(image.tobytes(), (width, height), "RGB")


if __name__ == "__main__":
    main(*sys.argv[1:])
