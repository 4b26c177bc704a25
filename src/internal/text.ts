/**
 * What a shutdown says, in words: for logs, and for whoever reads a report without a program.
 */
import { describe, type Reason } from "./phase.ts"
import type { Report, Span, Status, Work } from "./report.ts"

export const duration = (millis: number): string =>
  millis === Number.POSITIVE_INFINITY
    ? "for ever"
    : millis < 1000
      ? `${Math.round(millis)}ms`
      : `${Math.round(millis / 100) / 10}s`

export const took = ({ from, to }: Span): string => duration(to - from)

const count = (n: number, noun: string): string => `${n} ${noun}${n === 1 ? "" : "s"}`

const worked = ({ peer, what }: Work): string => `${what} from ${peer}`

/** What was cut, and how long it had been in flight. */
export const cut = (work: Work): string => `${worked(work)} after ${duration(work.age)}`

/** The first line: what begins, why, and how long it may take. */
export const began = (reason: Reason, status: Status, limits: { timeout: number; lameDuck: number }): string => {
  const open = waiting(status)
  const lameDuck = limits.lameDuck > 0 ? ` Lame duck for ${duration(limits.lameDuck)} first.` : ""
  const limit = limits.timeout === Number.POSITIVE_INFINITY ? "No time limit" : `At most ${duration(limits.timeout)}`
  return `Shutting down (${describe(reason)}). ${limit}.${lameDuck} Open: ${open.length === 0 ? "nothing" : open.join("; ")}`
}

/** What a shutdown still waits for, a phrase each. */
export const waiting = (status: Status): Array<string> => [
  ...status.listeners
    .filter((listener) => listener.connections > 0 || listener.inFlight > 0)
    .map(({ connections, inFlight, name, oldest: [oldest] }) => {
      const since = oldest === undefined ? "" : `, oldest ${worked(oldest)} for ${duration(oldest.age)}`
      return `${name}: ${count(connections, "connection")}, ${inFlight} in flight${since}`
    }),
  ...status.sections.map(({ age, inFlight, name }) =>
    inFlight === 1
      ? `busy "${name}" for ${duration(age)}`
      : `busy "${name}": ${inFlight} in flight, oldest for ${duration(age)}`
  ),
  ...status.finalizers.map(({ age, name }) => `finalizer "${name}" for ${duration(age)}`)
]

/** The same for one line of a terminal, as short as it can be. */
export const brief = (status: Status): Array<string> => [
  ...status.listeners
    .filter((listener) => listener.connections > 0 || listener.inFlight > 0)
    .map(({ connections, inFlight, name, oldest: [oldest] }) =>
      oldest === undefined
        ? `${name} ${count(connections, "connection")}`
        : `${name} ${inFlight} (${oldest.what} ${duration(oldest.age)})`
    ),
  ...status.sections.map(({ age, inFlight, name }) => `busy "${name}" ${inFlight} (${duration(age)})`),
  ...status.finalizers.map(({ age, name }) => `finalizer "${name}" (${duration(age)})`)
]

/** How it ended, in one line. */
export const summary = (report: Report): string => {
  const how = report.forced
    ? "cut at its deadline"
    : report.listeners.some(({ forced }) => forced)
      ? "complete, with work cut,"
      : "complete"
  return `Shutdown ${how} after ${duration(report.millis)} (${describe(report.reason)})`
}

/** How it ended, in as many lines as it takes. */
export const ended = (report: Report): string => {
  const lines = [summary(report)]
  for (const listener of report.listeners) {
    const { abandoned, cut, cutWork, drained, name } = listener
    lines.push(`  ${name}: ${drained} drained, ${cut} cut, ${abandoned} abandoned, ${took(listener)}`)
    for (const work of cutWork) lines.push(`    cut: ${work}`)
    if (cutWork.length > 0 && cut > cutWork.length) lines.push(`    cut: ${cut - cutWork.length} more`)
  }
  for (const section of report.sections) {
    const { abandoned, cut, drained, name } = section
    lines.push(`  busy "${name}": ${drained} drained, ${cut} cut, ${abandoned} abandoned, ${took(section)}`)
  }
  for (const finalizer of report.finalizers) {
    const error = finalizer.error === undefined ? "" : `: ${finalizer.error}`
    lines.push(`  finalizer "${finalizer.name}": ${finalizer.outcome} after ${took(finalizer)}${error}`)
  }
  for (const hung of report.hung) lines.push(`  hung: ${hung}`)
  return lines.join("\n")
}

/** What is open, in as many lines as it takes. */
export const now = (status: Status): string => {
  const phase = status.started || status.phase !== "Running" ? status.phase : "Starting"
  const reason = status.reason === undefined ? "" : ` (${describe(status.reason)})`
  const left = status.left === undefined ? "" : `, ${duration(status.left)} left`
  const lines = [`${phase}${reason}${left}`]
  for (const listener of status.listeners) {
    const { abandoned, connections, cut, drained, inFlight, name, oldest, phase } = listener
    const ends = phase === "open" ? "" : `, ${drained} drained, ${cut} cut, ${abandoned} abandoned`
    lines.push(`  ${name}: ${phase}, ${count(connections, "connection")}, ${inFlight} in flight${ends}`)
    for (const work of oldest) lines.push(`    ${worked(work)} for ${duration(work.age)}`)
  }
  for (const { age, inFlight, name } of status.sections) {
    lines.push(`  busy "${name}": ${inFlight} in flight, oldest for ${duration(age)}`)
  }
  for (const { age, name } of status.finalizers) lines.push(`  finalizer "${name}": running for ${duration(age)}`)
  return lines.join("\n")
}
