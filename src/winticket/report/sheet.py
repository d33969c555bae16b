"""The page's style sheet. It covers light and dark, phone, desktop and print, and it loads nothing from outside."""

from __future__ import annotations

SHEET = """
:root { color-scheme: light dark; --paper: #ffffff; --page: #f5f6f8; --text: #1d2129; --quiet: #5c6470;
  --rule: #e0e3e8; --won: #00684a; --won-bg: #e3f4ec; --lost: #a3330a; --lost-bg: #fbeae3; --open: #6b5200;
  --open-bg: #fbf2d5; --link: #005c99; --sure: #eef6fb; }
@media (prefers-color-scheme: dark) { :root { --paper: #191c22; --page: #101216; --text: #eceef1;
  --quiet: #a3abb7; --rule: #333841; --won: #6fd3ab; --won-bg: #12302a; --lost: #ff9d76; --lost-bg: #3a1d12;
  --open: #f0cf62; --open-bg: #352c0f; --link: #7cc4f5; --sure: #182a37; }
  img.turned { filter: invert(0.9) hue-rotate(180deg); } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--page); color: var(--text); -webkit-text-size-adjust: 100%;
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, "Liberation Sans", sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 1.25rem 1rem 4rem; }
section, header.verdict { background: var(--paper); border: 1px solid var(--rule); border-radius: 12px;
  padding: 1.25rem 1.4rem; margin: 0 0 1rem; }
header.verdict { border-left: 8px solid var(--tone); background: var(--tone-bg); }
.won { --tone: var(--won); --tone-bg: var(--won-bg); }
.not-won { --tone: var(--lost); --tone-bg: var(--lost-bg); }
.inconclusive { --tone: var(--open); --tone-bg: var(--open-bg); }
.over { margin: 0 0 .3rem; color: var(--quiet); font-size: .9rem; }
h1 { margin: 0 0 .5rem; font-size: clamp(1.5rem, 4.5vw, 2.15rem); line-height: 1.2; color: var(--tone);
  letter-spacing: -.01em; }
h2 { margin: 0 0 .7rem; font-size: 1.15rem; line-height: 1.3; }
h3 { margin: 1.2rem 0 .4rem; font-size: 1rem; }
p { margin: 0 0 .7rem; max-width: 70ch; }
p:last-child, ul:last-child, ol:last-child { margin-bottom: 0; }
.note { color: var(--quiet); font-size: .9rem; }
dl { display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: .8rem 1.2rem;
  margin: 0; }
dl.wide { grid-template-columns: minmax(6rem, max-content) 1fr; gap: .35rem 1.2rem; }
dl.wide > dd { font-weight: 400; }
dl > .long { grid-column: span 2; }
dt { color: var(--quiet); font-size: .82rem; }
dd { margin: 0; font-weight: 600; overflow-wrap: anywhere; }
dl.wide dt { font-size: .95rem; }
.scroll { overflow-x: auto; margin: 0 -.2rem; padding: 0 .2rem; container-type: inline-size; }
.broad { width: min-content; min-width: 100%; }
/* As wide as the content, less the box, allows: 0, and so without height, if nothing is outside the box. */
.hint { position: sticky; left: calc(100cqi - 4.5rem); width: clamp(0px, (100% - 100cqi) * 999, 4.5rem);
  aspect-ratio: 3.6; overflow: hidden; margin: 0; text-align: right; white-space: nowrap; color: var(--link);
  font-size: .82rem; line-height: 1.25rem; }
table { border-collapse: collapse; min-width: 60%; font-size: .9rem; font-variant-numeric: tabular-nums; }
th, td { padding: .34rem .6rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--rule); }
td, tbody th { vertical-align: top; }
th { font-weight: 600; }
thead th { vertical-align: bottom; }
thead th { white-space: normal; min-width: 4.2rem; border-bottom: 2px solid var(--rule); }
th:first-child, td:first-child { padding-left: .2rem; }
th.text, td.text { text-align: left; }
td.long { white-space: normal; min-width: 9rem; }
tr.sure th, tr.sure td { background: var(--sure); }
.no { color: var(--quiet); }
figure { margin: 0; }
figure img { display: block; width: 100%; height: auto; }
figure .broad { width: auto; min-width: 34rem; }
figure.wide .broad { min-width: 46rem; }
figcaption { color: var(--quiet); font-size: .88rem; margin-top: .5rem; }
pre { overflow-x: auto; margin: 0 0 .7rem; padding: .9rem 1rem; border-radius: 8px; background: var(--page);
  border: 1px solid var(--rule); font-size: .86rem; line-height: 1.5; }
code { font-family: ui-monospace, "Cascadia Mono", Menlo, "DejaVu Sans Mono", monospace; }
section > .scroll + .note { margin-top: .8rem; }
section > .scroll + details { margin: .8rem 0; }
ul, ol { margin: 0 0 .7rem; padding-left: 1.3rem; }
li { margin: 0 0 .35rem; max-width: 72ch; }
th a, dt a { color: inherit; text-decoration: underline dotted; text-underline-offset: .2em; }
dt:target { color: var(--link); scroll-margin-top: 1rem; }
a:focus-visible, summary:focus-visible { outline: 2px solid var(--link); outline-offset: 2px; }
details summary { cursor: pointer; color: var(--link); font-weight: 600; }
details[open] summary { margin-bottom: .8rem; }
@media (max-width: 40rem) { main { padding: .6rem .5rem 3rem; }
  section, header.verdict { padding: 1rem .9rem; } pre { white-space: pre-wrap; }
  dl.words { grid-template-columns: 1fr; gap: .1rem; }
  dl.words dt { margin-top: .7rem; } }
@media print { :root { --page: #fff; } body { font-size: 11pt; } main { max-width: none; padding: 0; }
  section, header.verdict { border-radius: 0; break-inside: avoid-page; } .scroll { overflow: visible; }
  figure .broad, figure.wide .broad { min-width: 0; } .hint { display: none; }
  th, td { padding: .2rem .35rem; } table { font-size: .78rem; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; } }
"""
