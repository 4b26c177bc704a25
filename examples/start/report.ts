/**
 * What the clients tell `main.ts`, one line of JSON each.
 */
export type Report = UnderWay | Ended

/** All of them are in the middle of something. */
export interface UnderWay {
  readonly _tag: "UnderWay"
}

export interface Ended {
  readonly _tag: "Ended"
  readonly client: string
  readonly lost: boolean
  /** What it saw, in words. */
  readonly saw: string
  readonly at: number
}

/** Milliseconds on a clock that all processes of a machine share, and that nobody sets. */
export const now = (): number => Number(process.hrtime.bigint()) / 1e6

export const write = (report: Report): void => void process.stdout.write(`${JSON.stringify(report)}\n`)
