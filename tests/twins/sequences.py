"""Documents to sequences, one piece after another."""

Piece = tuple[int, int, int]  # document, its first token, how many


def concatenate(lengths: list[int], length: int) -> list[list[Piece]]:
    """Return sequences as lists of pieces: all tokens in order, a new sequence after every ``length``."""
    sequences: list[list[Piece]] = []
    room = 0
    for document, left in enumerate(lengths):
        begin = 0
        while left:
            if not room:
                sequences.append([])
                room = length
            taken = min(left, room)
            sequences[-1].append((document, begin, taken))
            begin, left, room = begin + taken, left - taken, room - taken
    return sequences


def best_fit(lengths: list[int], length: int) -> list[list[Piece]]:
    """Return sequences as lists of pieces: the longest piece first, each where it leaves the least room."""
    pieces = [(d, b, min(n - b, length)) for d, n in enumerate(lengths) for b in range(0, n, length)]
    sequences: list[dict] = []
    for time, piece in enumerate(sorted(pieces, key=lambda piece: (-piece[2], piece[:2]))):
        fitting = [s for s in sequences if s["room"] >= piece[2]]
        if not fitting:
            sequences.append({"room": length, "pieces": []})
            fitting = sequences[-1:]
        best = min(fitting, key=lambda s: (s["room"], -s.get("time", 0)))
        best["pieces"].append(piece)
        best["room"], best["time"] = best["room"] - piece[2], time
    return sorted(sorted(s["pieces"]) for s in sequences)


def arrange(documents: list[list[int]], sequences: list[list[Piece]]) -> list[tuple[list[int], list[int], list[int]]]:
    """Return ids, positions and borders of each sequence."""
    rows = []
    for pieces in sequences:
        ids, positions, borders = [], [], []
        for document, begin, taken in pieces:
            borders.append(len(ids))
            ids += documents[document][begin : begin + taken]
            positions += range(taken)
        rows.append((ids, positions, [*borders, len(ids)]))
    return rows
