"""Figures of what one trained network looks at: maps, their scores, curves, features, receptive fields."""

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.patheffects import Stroke, withStroke

from analysis.explanations.features import separation, tsne
from analysis.explanations.pointing import PLACES, Score, mean_interval, places, spread
from analysis.explanations.stored import KINDS, ORDERS, Explanations
from analysis.rendering.canvas import COLOURS, GREY, INK, LINES, MARKERS, Drawing, legend_below, new_figure, style
from analysis.words import bounds, counted, distinct, listed, share, signed

COLUMNS = 4
EXAMPLES = 8
ORDER_NAMES = {"map": "Grad-CAM", "random": "random order", "untrained": "untrained network"}
# Contours are drawn at these shares of a map's maximum.
LEVELS = (0.5, 0.9)
# Receptive fields span many orders of magnitude; what is fainter than this share of the strongest pixel is white.
FAINTEST = 1e-4


def draw_all(one: Explanations, *, rng: np.random.Generator) -> list[Drawing]:
    """All figures of one file. rng: for the intervals' bootstrap, the noise maps and the start of t-SNE."""
    drawings = [example_maps(one, stage) for stage in one.stages]
    scores = one.localisation(rng)
    if scores:
        drawings.append(localisation(one, scores))
    drawings += [curves(one, rng=rng), receptive_fields(one)]
    if len(one.arrays["ids"]) >= 5:
        drawings.append(features(one, rng=rng))
    return drawings


def example_maps(one: Explanations, stage: int) -> Drawing:
    """Up to eight images, those with a known lesion first, with contours of their Grad-CAM map and of the lesion."""
    arrays, cell = one.arrays, one.about["cells"][stage]
    # A stable choice: the first ones with a lesion, not the best ones.
    chosen = np.argsort(~one.lesions, kind="stable")[:EXAMPLES]
    images = arrays["images"][chosen]
    height, width = images.shape[1:3]
    maps = spread(one.maps(stage)[chosen], cell, (height, width))
    rows = -(-len(chosen) // COLUMNS)
    names = distinct(one.about["classes"], 14)
    with style():
        figure, axes = new_figure(rows * (1.05 * height / width + 0.42) + 0.1, rows, COLUMNS)
        for panel, index, image, found in zip(axes, chosen, images, maps):
            grey = image.mean(-1)
            panel.imshow(grey, cmap="gray", vmin=0, vmax=255)
            if one.lesions[index]:
                _outline(panel, arrays["masks"][index].astype(float), [0.5], "-", "white", INK)
            if found.max() > 0:
                _outline(panel, found / found.max(), LEVELS, "--", INK, "white")
            likely = arrays["probabilities"][index, arrays["targets"][index]]
            panel.set_title(f"{names[arrays['targets'][index]]}\np = {share(float(likely), 2)}", fontsize=7)
        _bare(axes)
        for panel in axes[len(chosen) :]:
            panel.set_visible(False)
    lesion = "Solid white: the outline of the known lesion. " if one.lesions.any() else ""
    caption = (
        f"{one.title}. The first {counted(len(chosen), 'test image')}{' with a lesion' if lesion else ''}, not chosen "
        f"by hand. {lesion}Dashed: where Grad-CAM of stage {stage}, for the {one.about['maps_for']} class, is above "
        f"{100 * LEVELS[0]:g} % and {100 * LEVELS[1]:g} % of its maximum; a cell of its grid is {cell} pixels wide. "
        "p: the probability the network gives that class."
    )
    alt = f"Images in grey with contours of their maps, {counted(len(chosen), 'panel')}."
    return Drawing(f"maps_stage_{stage}", figure, f"Grad-CAM, stage {stage}", caption, alt)


def localisation(one: Explanations, scores: dict[int, list[Score]]) -> Drawing:
    """Pointing game and energy in the lesion by stage, with the controls beside each."""
    rows = [(stage, score) for score in range(2) for stage in scores]
    with style():
        figure, (axes,) = new_figure(0.9 + 0.34 * len(rows))
        for place, (stage, which) in enumerate(rows):
            score = scores[stage][which]
            axes.plot([score.interval.low, score.interval.high], [place, place], color=INK, linewidth=1.1)
            label = "Grad-CAM" if place == 0 else None
            axes.plot([score.value], [place], "o", color=INK, markersize=5, label=label)
            for index, control in enumerate(score.controls):
                axes.plot(
                    [control.value], [place + 0.22], MARKERS[index], color=COLOURS[index], markersize=4,
                    fillstyle="none", label=control.name if place == 0 else None,
                )  # fmt: skip
        axes.set_yticks(range(len(rows)), [f"{scores[stage][which].measure},\nstage {stage}" for stage, which in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(left=0)
        axes.grid(axis="y", visible=False)
        axes.set_xlabel("share of images (pointing game), of the map (energy)")
        legend_below(figure, axes, 3)
    first = scores[next(iter(scores))][0]
    empty = {stage: score[0].n_empty for stage, score in scores.items() if score[0].n_empty}
    caption = (
        f"{one.title}; {counted(first.n_images, 'test image')} with a known lesion. Lines: "
        f"{first.interval.basis('intervals')}; network and seed are held fixed. Hollow: the same scores of controls: "
        "chance is the share of the image that the lesion "
        "covers, noise random maps on the same grid, other image the maps of all other images on this lesion, "
        "untrained the network before training."
    )
    if empty:
        caption += f" Maps of zeros: {listed([f'{count} in stage {stage}' for stage, count in empty.items()])}."
    shown = "; ".join(
        f"{s[w].measure} stage {stage} {share(s[w].value)}" for stage, s in scores.items() for w in (0, 1)
    )
    return Drawing("localisation", figure, "Do maps find the lesion?", caption, f"Dot plot. {shown}.")


def curves(one: Explanations, *, rng: np.random.Generator) -> Drawing:
    """The mean probability of the explained class as pixels are removed (deletion) and put back (insertion)."""
    fractions = one.arrays["fractions"]
    with style():
        figure, axes = new_figure(2.5, 1, 2)
        for panel, kind in zip(axes, KINDS):
            found = one.curves(kind)
            for index, order in enumerate(ORDERS):
                line = "-" if index == 0 else LINES[index - 1]
                colour = INK if index == 0 else COLOURS[index - 1]
                panel.plot(fractions, found[order].mean(0), color=colour, linestyle=line, label=ORDER_NAMES[order])
            around = [mean_interval(column, one.groups, rng) for column in found["map"].T]
            panel.fill_between(
                fractions, [i.low for i in around], [i.high for i in around], color=GREY, alpha=0.3, linewidth=0
            )
            panel.set_title(kind)
            panel.set_xlabel("pixels taken away" if kind == "deletion" else "pixels put back")
            panel.set_xlim(0, 1)
            panel.set_ylim(0, 1)
        axes[0].set_ylabel("probability of the class")
        legend_below(figure, axes[0], 3)
    scores = one.curve_scores(rng)
    words = [f"{score.measure} {share(score.value)} {bounds(score.interval)}" for score in scores]
    caption = (
        f"{one.title}; means over {counted(len(one.arrays['ids']), 'test image')}, pixels in the order of the last "
        "stage's Grad-CAM or of a control. Deletion sets pixels to the mean, insertion starts from a blurred image. "
        f"Band and brackets: {scores[0].interval.basis('intervals')}, network and seed held fixed. The "
        "untrained network gives the order alone; the probabilities are the trained one's. "
        f"{words[0]} (small is good), {words[1]} (large is good)."
    )
    return Drawing(
        "curves", figure, "Does the answer hang on what the map marks?", caption, f"Line plots. {'; '.join(words)}."
    )


def features(one: Explanations, *, rng: np.random.Generator) -> Drawing:
    """A t-SNE picture of the penultimate features, one marker per class, with the measured separation beside it."""
    labels, classes = one.arrays["labels"], one.about["classes"]
    picture = tsne(one.arrays["features"], rng=rng)
    apart = one.separation()
    seen = separation(picture, labels, groups=one.groups).knn_accuracy
    with style():
        figure, (axes,) = new_figure(3.4)
        for label, name in enumerate(distinct(classes)):
            here = picture[labels == label]
            axes.scatter(
                here[:, 0], here[:, 1], s=14, marker=MARKERS[label % len(MARKERS)], linewidth=0.8,
                facecolor="none" if label % 2 else COLOURS[label % len(COLOURS)],
                edgecolor=COLOURS[label % len(COLOURS)], label=name,
            )  # fmt: skip
        _bare([axes])
        axes.set_aspect("equal", "datalim")
        legend_below(figure, axes)
    caption = (
        f"{one.title}; t-SNE of {counted(apart.n_images, 'test image')}: who is near whom; distances, sizes and gaps "
        "mean nothing. Measured on the features themselves: "
        f"{apart.neighbours}-NN accuracy {share(apart.knn_accuracy)} "
        f"(always the commonest class: {share(apart.majority)}; on the picture: {share(seen)}), silhouette "
        f"{signed(apart.silhouette, 3)}. One network on fixed images: no interval."
    )
    alt = f"Scatter plot of {apart.n_images} images, marked by class: {listed(list(classes))}."
    return Drawing("features", figure, "Penultimate features", caption, alt)


def receptive_fields(one: Explanations) -> Drawing:
    """What outputs at the centre and the corners of each stage depend on."""
    energies = one.arrays["receptive_fields"]
    stages, _, height, width = energies.shape
    fields = one.fields()
    with style():
        figure, axes = new_figure(stages * (0.83 * height / width + 0.3) + 0.25, stages, len(PLACES))
        for panel, field, energy in zip(axes, fields, energies.reshape(-1, height, width)):
            top = energy.max()
            shown = (
                np.log10(np.maximum(energy / top, FAINTEST)) if top > 0 else np.full(energy.shape, np.log10(FAINTEST))
            )
            panel.imshow(shown, cmap="Greys", vmin=np.log10(FAINTEST), vmax=0)
            rows, columns = one.maps(field.stage).shape[1:]
            row, column = places(rows, columns)[PLACES.index(field.place)]
            cell = one.about["cells"][field.stage]
            panel.plot(
                min((column + 0.5) * cell - 0.5, width - 1), min((row + 0.5) * cell - 0.5, height - 1),
                "x", color="white", markersize=5, path_effects=[withStroke(linewidth=2.4, foreground=INK)],
            )  # fmt: skip
            panel.set_title(f"{share(field.most, 2)}", fontsize=7, pad=2)
        for index, place in enumerate(PLACES):
            axes[index].set_title(f"{place.replace('_', ' ')}\n{axes[index].get_title(loc='left')}", fontsize=7, pad=2)
        for stage in range(stages):
            axes[stage * len(PLACES)].set_ylabel(f"stage {stage}", fontsize=7)
        _bare(axes, framed=True)
    caption = (
        f"{one.title}. Darkness, on a logarithmic scale over four orders of magnitude: how strongly the output at the "
        "cross depends on each pixel (squared gradient, a mean over test images). The number: the share of the image "
        "that holds 95 % of it, the fewest pixels counted."
    )
    last = [field for field in fields if field.stage == stages - 1]
    words = "; ".join(f"{field.place.replace('_', ' ')} {share(field.most, 2)}" for field in last)
    alt = f"Maps of receptive fields. Share of the image behind 95 % of an output of the last stage: {words}."
    return Drawing("receptive_fields", figure, "Effective receptive fields", caption, alt)


def _outline(axes: Axes, values: np.ndarray, levels: Sequence[float], line: str, colour: str, halo: str) -> None:
    """Contours with a halo, so that they show on any grey."""
    # A lesion at the image's edge is outlined there, too.
    framed = np.pad(values, 1)
    height, width = values.shape
    y, x = np.arange(-1, height + 1).clip(-0.5, height - 0.5), np.arange(-1, width + 1).clip(-0.5, width - 0.5)
    if framed.min() >= levels[0] or framed.max() <= levels[-1]:
        return
    drawn = axes.contour(x, y, framed, levels=list(levels), colors=colour, linewidths=1.0, linestyles=line)
    drawn.set_path_effects(
        [Stroke(linewidth=2.2, foreground=halo, alpha=0.7), withStroke(linewidth=0, foreground=halo)]
    )


def _bare(axes: Sequence[Axes], framed: bool = False) -> None:
    for panel in axes:
        panel.set_xticks([])
        panel.set_yticks([])
        panel.grid(visible=False)
        for spine in panel.spines.values():
            spine.set_visible(framed)
