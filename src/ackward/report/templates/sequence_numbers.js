// Times and sizes as the time-sequence plot writes them (sequence.js).

const group = (number) => number.toLocaleString("en");
const instant = (ns) => `${(ns / 1e6).toLocaleString("en", { minimumFractionDigits: 3, maximumFractionDigits: 6 })} ms`;
// A step of 1, 2 or 5 times a power of ten, with which a span has about `wanted` ticks.
function tickStep(span, wanted) {
  const raw = span / Math.max(wanted, 1);
  const power = 10 ** Math.floor(Math.log10(raw));
  return power * [1, 2, 5, 10].find((factor) => factor * power >= raw * 0.999);
}

// Ticks are written in the unit that suits their step.
function tickText(value, step, unitsOf) {
  const [unit, name] = unitsOf.find(([size]) => Math.max(step, Math.abs(value) / 1000) >= size) ?? unitsOf.at(-1);
  const digits = Math.max(0, Math.ceil(-Math.log10(step / unit) - 1e-9));
  return `${(value / unit).toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${name}`;
}
const TIMES = [[1e9, "s"], [1e6, "ms"], [1e3, "us"], [1, "ns"]];
// As units.py writes a duration: three digits.
function duration(ns) {
  const [unit, name] = TIMES.find(([size]) => ns >= size * 0.9995) ?? TIMES.at(-1);
  const digits = { maximumSignificantDigits: 3, minimumSignificantDigits: unit === 1 ? 1 : 3 };
  return `${(ns / unit).toLocaleString("en", digits)} ${name}`;
}
const SIZES = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"], [1, "B"]];
