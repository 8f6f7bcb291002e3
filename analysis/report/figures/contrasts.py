"""Figure of all contrasts of a study in one metric."""

from collections.abc import Sequence

from analysis.rendering.canvas import GREY, INK, Drawing, new_figure, room, style
from analysis.verdicts.verdict import Verdict, stated
from analysis.words import bounds, distinct, metric_name, p_value, signed

FILLS = {"superior": "#31a354", "inferior": "#de2d26", "equivalent": "#9ecae1", "inconclusive": "white"}


def at_a_glance(verdicts: Sequence[Verdict], name: str) -> Drawing:
    """The estimate of each contrast with the interval of the test that decided, its margin, and what came of it.

    verdicts: of one metric, each with an estimate.
    """
    metric = metric_name(verdicts[0].contrast.metric)
    with style():
        figure, (axes,) = new_figure(0.95 + 0.27 * len(verdicts))
        axes.axvline(0, color=INK, linewidth=0.8, zorder=1)
        for place, verdict in enumerate(verdicts):
            estimate, interval, _ = stated(verdict)
            margin = verdict.contrast.margin
            if margin:
                axes.fill_betweenx(
                    [place - 0.42, place + 0.42], -margin, margin, color="#f0f0f0", linewidth=0, zorder=0
                )
            if interval.is_defined:
                axes.plot([interval.low, interval.high], [place, place], color=INK, linewidth=1.1, zorder=2)
                axes.plot([interval.low, interval.high], [place, place], "|", color=INK, markersize=5, zorder=2)
            axes.plot(
                [estimate], [place], "o", color=INK, markerfacecolor=FILLS[verdict.outcome], markersize=6, zorder=3
            )
            p = verdict.adjusted_equivalence_p if verdict.outcome == "equivalent" else verdict.adjusted_p
            said = f"{verdict.outcome}{', exploratory' if verdict.exploratory else ''}, p {p_value(p)}"
            axes.annotate(
                said, (1.0, place), xycoords=("axes fraction", "data"), xytext=(5, 0), textcoords="offset points",
                va="center", fontsize=7, color=INK, annotation_clip=False,
            )  # fmt: skip
        baselines = {verdict.contrast.baseline_label for verdict in verdicts}
        one = len(baselines) == 1
        names = [
            v.contrast.against_label if one else f"{v.contrast.against_label} − {v.contrast.baseline_label}"
            for v in verdicts
        ]
        axes.set_yticks(range(len(verdicts)), distinct(names, room(30)))
        axes.set_ylim(len(verdicts) - 0.4, -0.6)
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.set_xlabel(f"{metric}, minus that of {baselines.pop()}" if one else f"difference in {metric}")
        axes.xaxis.label.set_color(INK)
        axes.grid(axis="x", color=GREY, linewidth=0.3, alpha=0.5)
    caption = (
        "Points and lines: the estimate and the interval of the test that decided. Grey: the declared margin, inside "
        "which a difference does not matter. p: after correction within the family."
    )
    shown = "; ".join(
        f"{v.contrast.against_label} {signed(stated(v)[0])} {bounds(stated(v)[1], 4, sign=True)}, {v.outcome}"
        for v in verdicts
    )
    return Drawing(name, figure, f"Contrasts in {metric}", caption, f"Interval plot. {shown}.")
