/**
 * What `main.ts` prints, within 80 columns.
 */

export interface Row {
  readonly client: string
  /** After the signal. */
  readonly millis: number
  readonly outcome: "ok" | "LOST" | "TOO EARLY"
  readonly saw: string
}

const columns = (client: string, millis: string, outcome: string, saw: string): string =>
  `${client.padEnd(18)}${millis.padStart(14)}  ${outcome.padEnd(5)} ${saw}`

export const table = (rows: ReadonlyArray<Row>): string =>
  [
    columns("client", "after SIGTERM", "", "saw"),
    ...rows.map(({ client, millis, outcome, saw }) => columns(client, `${millis} ms`, outcome, saw))
  ].join("\n")

const width = 80

/** Breaks a line between its words, and begins each part with `prefix`. */
export const wrapped = (line: string, prefix: string): string => {
  const parts: Array<string> = []
  let part = prefix
  for (const [index, word] of line.split(" ").entries()) {
    const longer = index === 0 ? part + word : `${part} ${word}`
    if (longer.length <= width) part = longer
    else {
      parts.push(part)
      part = `${prefix}    ${word}`
    }
  }
  return [...parts, part].join("\n")
}
