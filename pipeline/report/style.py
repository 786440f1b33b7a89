"""The report's style sheet: for screens (light or dark), phones and paper. It loads nothing from elsewhere."""

STYLE = """
:root { color-scheme: light dark; --ink: #1f2328; --soft: #59636e; --faint: #8b949e; --line: #d6dbe1; --paper: #fff;
  --shade: #f5f7f9; --accent: #0b6bcb; --good: #14703a; --good-paper: #dff5e6; --open: #8a4b00; --open-paper:
  #fdebd0; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e9ed; --soft: #a3adb8; --faint: #79828d; --line: #363d45;
  --paper: #14171a; --shade: #1d2226; --accent: #6cb2ff; --good: #86dfa5; --good-paper: #143522; --open: #ffc883;
  --open-paper: #40290a; } }
* { box-sizing: border-box; }
html { -webkit-text-size-adjust: 100%; }
body { font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif; color: var(--ink);
  background: var(--paper); max-width: 70rem; margin: 0 auto; padding: 2.2rem 1.4rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0; overflow-wrap: anywhere; }
h2 { font-size: 1.22rem; margin: 2.8rem 0 .8rem; padding-top: 1rem; border-top: 1px solid var(--line); }
h3 { font-size: 1rem; margin: 1.6rem 0 .4rem; }
p { margin: .5rem 0; } a { color: var(--accent); }
header .under { color: var(--soft); margin: .35rem 0 0; overflow-wrap: anywhere; }
header .lead { font-size: 1.2rem; line-height: 1.5; margin: 1.1rem 0 0; max-width: 62rem; }
.badge { display: inline-block; vertical-align: middle; font-size: .82rem; font-weight: 600; line-height: 1.2;
  padding: .28rem .7rem; border-radius: 99px; margin-left: .6rem; white-space: nowrap; }
.badge.good { color: var(--good); background: var(--good-paper); }
.badge.open { color: var(--open); background: var(--open-paper); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(10rem, 1fr)); gap: .8rem; margin: 1.5rem 0 0; }
.tile { background: var(--shade); border-radius: 8px; padding: .75rem .95rem; }
.tile b { display: block; font-size: 1.45rem; line-height: 1.25; font-weight: 650; font-variant-numeric:
  tabular-nums; }
.tile span { color: var(--soft); font-size: .88rem; }
.todo { background: var(--open-paper); border-radius: 8px; padding: .7rem 1rem; margin: 1.3rem 0 0; }
.todo ul { margin: .2rem 0; padding-left: 1.2rem; } .todo pre { margin: .3rem 0 .5rem; background: var(--paper); }
figure { margin: 0 0 1.7rem; break-inside: avoid; }
.pair { display: grid; grid-template-columns: repeat(auto-fit, minmax(17rem, 1fr)); gap: .6rem; align-items: start; }
.pair.alone { grid-template-columns: minmax(0, 36rem); }
.pair img { width: 100%; height: auto; display: block; border-radius: 4px; }
.pair.tall { grid-template-columns: repeat(2, max-content); } .pair.tall img { width: auto; max-height: 36rem;
  max-width: 45vw; }
figcaption { color: var(--soft); font-size: .92rem; margin-top: .45rem; } figcaption b { color: var(--ink); }
.legend { display: flex; flex-wrap: wrap; gap: .2rem 1.1rem; font-size: .92rem; margin: 0 0 .9rem; }
.swatch { display: inline-block; width: .85em; height: .85em; border-radius: 2px; margin-right: .4em; vertical-align:
  -.06em; }
.plots { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(24rem, 100%), 1fr)); gap: 1rem 1.6rem;
  margin: 1rem 0; align-items: start; }
.plots > div { break-inside: avoid; }
svg.plot { width: 100%; height: auto; max-width: 40rem; display: block; }
svg.plot text { font-family: system-ui, -apple-system, "Segoe UI", "Noto Sans", sans-serif !important; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; font-size: .95rem; font-variant-numeric: tabular-nums; }
th, td { padding: .32rem 1.3rem .32rem 0; text-align: left; vertical-align: top; }
th { font-weight: 600; color: var(--soft); border-bottom: 1px solid var(--faint); white-space: nowrap; }
td { border-bottom: 1px solid var(--line); } .n { text-align: right; }
tr.all td { font-weight: 650; border-top: 1px solid var(--faint); }
dl { display: grid; grid-template-columns: minmax(8rem, max-content) 1fr; gap: .3rem 1.4rem; margin: .6rem 0; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
code, pre { font: .88em/1.5 ui-monospace, "SFMono-Regular", Menlo, Consolas, "DejaVu Sans Mono", monospace; }
code { background: var(--shade); padding: .08em .3em; border-radius: 4px; overflow-wrap: anywhere; }
pre { background: var(--shade); padding: .75rem .95rem; border-radius: 8px; overflow-x: auto; margin: .4rem 0 .9rem; }
pre code { background: none; padding: 0; white-space: pre-wrap; }
.note { color: var(--soft); font-size: .92rem; }
footer { color: var(--soft); font-size: .88rem; margin-top: 3rem; border-top: 1px solid var(--line); padding-top:
  .8rem; }
@media (max-width: 34rem) { body { padding: 1.3rem 1rem 3rem; } h1 { font-size: 1.45rem; } header .lead { font-size:
  1.08rem; }
  .badge { margin: .5rem 0 0; display: table; } dl { grid-template-columns: 1fr; gap: 0; } dd { margin-bottom: .5rem;
  } }
@page { margin: 15mm 13mm; }
@media print { :root { color-scheme: light; --ink: #000; --soft: #444; --faint: #777; --line: #ccc; --paper: #fff;
  --shade: #f4f4f4; --accent: #000; --good: #14703a; --good-paper: #e6f6eb; --open: #8a4b00; --open-paper: #fdf0dd; }
  * { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  body { font-size: 10pt; max-width: none; padding: 0; } h2, h3 { break-after: avoid; } h2 { margin-top: 1.4rem; }
  .pair { grid-template-columns: 1fr 1fr; } .pair.alone { grid-template-columns: 55%; } .plots {
  grid-template-columns: 1fr 1fr; }
  .wide { overflow: visible; } table { font-size: 8.5pt; } th { white-space: normal; vertical-align: bottom; }
  th, td { padding-right: .8rem; } .tiles { grid-template-columns: repeat(5, 1fr); gap: .4rem; }
  .tile { padding: .5rem .6rem; } .tile b { font-size: 1.2rem; } .tile span { font-size: .8rem; }
  tr, dl, pre, .tile { break-inside: avoid; } figure { margin-bottom: 1rem; } }
"""
