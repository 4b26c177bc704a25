/**
 * A report for people: a table that is as wide as their terminal, with a bar for the time in which each part drained.
 */
import type { Report, Span } from "./report.ts"
import { summary, took } from "./text.ts"

export interface Options {
  /** How wide it may be. */
  readonly columns: number
  readonly colors: boolean
}

interface Row extends Span {
  readonly name: string
  readonly cells: ReadonlyArray<string>
  /** Whether something went wrong with it. */
  readonly bad: boolean
  /** What else there is to say, a line each. */
  readonly notes: ReadonlyArray<string>
}

const head = ["drained", "cut", "left", "took"]

/** A wider line is harder to follow, and tells no more; in a narrower one nothing is left for the bars. */
const widest = 120
const narrowest = 60
/** Of a bar. */
const shortest = 12

export const table = (report: Report, options: Options): string => {
  const rows = rowsOf(report)
  const columns = Math.max(narrowest, Math.min(options.columns, widest))
  const paint = painter(options.colors)
  // Who was left behind is rare.
  const shown = head.map((_, index) => index !== 2 || rows.some(({ cells }) => Number(cells[2]) > 0))
  const widths = head.map((title, index) =>
    longest(
      title.length,
      rows.map(({ cells }) => cells[index]!)
    )
  )
  const counts = (cells: ReadonlyArray<string>): string =>
    cells.map((cell, index) => (shown[index] === true ? `  ${cell.padStart(widths[index]!)}` : "")).join("")
  const left = columns - 1 - counts(head).length - 2
  const name = Math.min(
    longest(
      0,
      rows.map((row) => row.name)
    ),
    left - shortest
  )
  const bar = left - name
  const line = (first: string, cells: ReadonlyArray<string>, last: string): string =>
    ` ${fit(first, name)}${counts(cells)}  ${last}`
  const isBad = report.forced || rows.some(({ bad }) => bad)
  return [
    paint(isBad ? "red" : "green", fitted(summary(report), columns)),
    paint("dim", line("", head, scale(report, bar))),
    ...rows.flatMap((row) => [
      line(row.name, row.cells, paint(row.bad ? "red" : "cyan", timeline(row, report.millis, bar))),
      ...row.notes.map((note) => paint("red", fitted(`   ${note}`, columns)))
    ]),
    ...report.hung.map((hung) => paint("red", fitted(` hung: ${hung}`, columns))),
    ""
  ].join("\n")
}

/** There may be too many to be arguments. */
const longest = (least: number, texts: ReadonlyArray<string>): number =>
  texts.reduce((longest, text) => Math.max(longest, text.length), least)

const rowsOf = (report: Report): Array<Row> => [
  ...report.phases.map((phase) => ({
    ...phase,
    name: phases[phase.phase],
    cells: ["", "", "", took(phase)],
    bad: false,
    notes: []
  })),
  ...report.listeners.map((listener) => ({
    ...listener,
    ...counted(listener),
    notes:
      listener.cutWork.length > few
        ? [...listener.cutWork.slice(0, few), "and more"].map(wasCut)
        : listener.cutWork.map(wasCut)
  })),
  ...report.sections.map((section) => ({
    ...section,
    ...counted(section),
    name: `busy "${section.name}"`,
    notes: []
  })),
  ...report.finalizers.map((finalizer) => ({
    ...finalizer,
    name: `finalizer "${finalizer.name}"`,
    cells: ["", "", "", took(finalizer)],
    bad: finalizer.outcome !== "released",
    notes:
      finalizer.outcome === "released"
        ? []
        : [finalizer.error === undefined ? finalizer.outcome : `${finalizer.outcome}: ${finalizer.error}`]
  }))
]

const phases = { LameDuck: "lame duck", Draining: "draining", Unwinding: "unwinding" }

/** More of what was cut than this is not for a table. */
const few = 10

const wasCut = (work: string): string => `cut: ${work}`

const counted = (counts: Span & { readonly drained: number; readonly cut: number; readonly abandoned: number }) => ({
  cells: [String(counts.drained), String(counts.cut), String(counts.abandoned), took(counts)],
  bad: counts.cut > 0 || counts.abandoned > 0
})

/** From when to when, `width` being the whole shutdown. */
const timeline = ({ from, to }: Span, millis: number, width: number): string => {
  const column = (at: number) => Math.round((Math.min(Math.max(at, 0), millis) / Math.max(millis, 1)) * width)
  const start = Math.min(column(from), width - 1)
  return " ".repeat(start) + "█".repeat(Math.max(1, column(to) - start))
}

const scale = ({ millis }: Report, width: number): string => {
  const end = took({ from: 0, to: millis })
  return `0${end.padStart(width - 1)}`
}

const fit = (text: string, width: number): string => fitted(text, width).padEnd(width)

/** `text`, shortened to `width`, and with nothing in it that a terminal would take for an order. */
export const fitted = (text: string, width: number): string => {
  // oxlint-disable-next-line no-control-regex -- that is what is taken out
  const plain = text.replace(/[\u0000-\u001F\u007F-\u009F]+/g, " ")
  return plain.length <= width ? plain : `${plain.slice(0, Math.max(0, width - 1))}…`
}

const codes = { red: 31, green: 32, cyan: 36, dim: 2 } as const

const painter =
  (colors: boolean) =>
  (color: keyof typeof codes, text: string): string =>
    colors ? `\u001B[${codes[color]}m${text}\u001B[0m` : text
