"""The page's style sheet: one column of text, figures in a grid, tables in boxes; for screen, phone and paper."""

CSS = """
:root { --ink: #1c1c1c; --soft: #595959; --line: #d4d4d4; --pale: #f5f5f3; --link: #0b5394; }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { margin: 0 auto; max-width: 76rem; padding: 1.5rem clamp(1rem, 4vw, 3rem) 4rem; color: var(--ink);
  background: #fff; font: 1rem/1.55 system-ui, -apple-system, "Segoe UI", Roboto, Helvetica, Arial, sans-serif; }
h1 { font-size: clamp(1.5rem, 5vw, 2.1rem); line-height: 1.2; margin: 0 0 .5rem; overflow-wrap: anywhere; }
h2 { font-size: 1.3rem; margin: 3rem 0 .75rem; padding-top: .75rem; border-top: 1px solid var(--line); }
h3 { font-size: 1.05rem; margin: 1.75rem 0 .5rem; overflow-wrap: anywhere; }
p, ul.plain, ol.plain { max-width: 46rem; }
ul.plain { padding-left: 1.2rem; }
a { color: var(--link); }
a:focus-visible, .scroll:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
.question { font-size: 1.15rem; max-width: 46rem; margin: .25rem 0 1rem; }
.answer { margin: .25rem 0 1rem; }
.eyebrow { color: var(--soft); margin: 0 0 .25rem; }
.note { border-left: 3px solid var(--soft); background: var(--pale); padding: .5rem .9rem; }
nav ol { list-style: none; display: flex; flex-wrap: wrap; gap: .3rem 1.1rem; padding: .75rem 0; margin: 1rem 0 0;
  border-top: 1px solid var(--line); border-bottom: 1px solid var(--line); font-size: .92rem; }
dl { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(45%, 11rem), 1fr)); gap: .75rem 1.5rem;
  margin: 1rem 0; }
dl.wide { display: block; max-width: 46rem; }
dl.wide > div { display: grid; grid-template-columns: clamp(4.5rem, 24%, 9rem) 1fr; gap: .75rem; padding: .15rem 0; }
dl.wide dt { font-size: .95rem; }
dt { color: var(--soft); font-size: .85rem; }
dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: break-word; min-width: 0; }
.verdicts { list-style: none; padding: 0; margin: 1rem 0; max-width: 52rem; }
.verdicts li { padding: .6rem 0 .6rem 2.1rem; border-bottom: 1px solid var(--line); position: relative; }
.verdicts .sign { position: absolute; left: 0; top: .6rem; width: 1.4rem; text-align: center; font-family: monospace; }
.verdicts .outcome, .verdicts .claim, .verdicts .numbers { display: block; }
.verdicts .outcome, .verdicts .numbers { color: var(--soft); font-size: .88rem; }
.verdicts .outcome strong { color: var(--ink); }
.verdicts details { font-size: .88rem; color: var(--soft); }
.verdicts summary, .verdicts details p { margin: .2rem 0 0; }
.verdicts .tag { border: 1px solid var(--soft); border-radius: .2rem; font-size: .8rem; padding: 0 .35rem;
  margin-left: .4rem; }
.figures { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 24rem), 1fr)); gap: 1.5rem 2.5rem;
  align-items: start; margin: 1rem 0; }
figure { margin: 0; max-width: 33rem; min-width: 0; }
figure svg { display: block; width: 100%; height: auto; }
figcaption, caption { font-size: .85rem; line-height: 1.45; color: var(--soft); text-align: left; }
figcaption { margin-top: .5rem; overflow-wrap: anywhere; }
figcaption .title, caption .title { color: var(--ink); }
figcaption .title::after { content: "."; }
.files { white-space: nowrap; }
.scroll { overflow-x: auto; margin: 1rem 0 1.5rem; max-width: 100%;
  /* A shadow at the side on which there is more to scroll to. */
  background: linear-gradient(to right, #fff 40%, transparent) left / 3rem 100% local no-repeat,
    linear-gradient(to left, #fff 40%, transparent) right / 3rem 100% local no-repeat,
    linear-gradient(to right, #0003, transparent) left / .8rem 100% scroll no-repeat,
    linear-gradient(to left, #0003, transparent) right / .8rem 100% scroll no-repeat; }
table { border-collapse: collapse; font-size: .88rem; font-variant-numeric: tabular-nums; }
caption { padding-bottom: .5rem; position: sticky; left: 0; max-width: min(46rem, calc(100vw - 3rem));
  caption-side: top; }
th, td { padding: .32rem .7rem; text-align: right; vertical-align: top; font-weight: 400; }
thead th { min-width: 3.5rem; }
th.words, td.words { text-align: left; }
tbody .words { white-space: nowrap; }
tbody .long { white-space: normal; min-width: 14rem; max-width: 34rem; overflow-wrap: break-word; }
thead th { line-height: 1.3; border-top: 1.5px solid var(--ink); border-bottom: 1px solid var(--ink);
  color: var(--soft); vertical-align: bottom; }
tbody tr:last-child > * { border-bottom: 1.5px solid var(--ink); }
tbody tr:hover > * { background: var(--pale); }
th:first-child, td:first-child { padding-left: 0; }
pre { overflow-x: auto; background: var(--pale); padding: .75rem 1rem; font-size: .82rem; line-height: 1.45; }
summary { cursor: pointer; margin: .75rem 0; }
@media (max-width: 40rem) {
  body { padding-top: 1rem; }
  h2 { margin-top: 2.25rem; }
  th, td { padding: .3rem .5rem; }
}
@media print {
  @page { margin: 16mm 14mm; }
  html { font-size: 9.5pt; }
  body { max-width: none; padding: 0; line-height: 1.4; }
  nav, .files, .verdicts summary { display: none; }
  a { color: inherit; text-decoration: none; }
  h2, h3 { break-after: avoid; }
  h2 { margin-top: 1.5rem; }
  .figures { grid-template-columns: 1fr 1fr; gap: 1rem 1.5rem; }
  figure, tr, .verdicts li, .note, dl { break-inside: avoid; }
  figure { max-width: 88mm; }
  .scroll { overflow: visible; background: none; }
  table { font-size: 7pt; max-width: 100%; }
  caption { position: static; max-width: none; }
  th, td { padding: .15rem .6rem .15rem 0; }
  th:last-child, td:last-child { padding-right: 0; }
  summary { list-style: none; }
  tbody .words { white-space: normal; }
  thead { display: table-header-group; }
  details::details-content { content-visibility: visible; height: auto; }
  pre { white-space: pre-wrap; font-size: 7pt; }
}
"""
