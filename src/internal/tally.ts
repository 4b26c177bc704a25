/**
 * What became of the work of one listener since its drain began.
 */
export class Tally {
  /** What ended by itself. */
  drained = 0
  /** What was destroyed. */
  cut = 0
  /** That in words, the first of it. */
  readonly cutWork: Array<string> = []

  /** Something was destroyed. */
  note(work: string): void {
    this.cut++
    if (this.cutWork.length < max) this.cutWork.push(work)
  }
}

const max = 100
