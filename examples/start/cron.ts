/**
 * The cron job as the server tells of it: a line when a report is begun, a line when it is written. Whether that is true its
 * file shows.
 */
import { Effect, FileSystem, Latch, Result } from "effect"
import { join } from "node:path"
import { whole } from "../11-everything/content.ts"
import { type Ended, now } from "./report.ts"
import { check, Lost } from "./wire.ts"

export class CronJob {
  /** Open while a report is being written. */
  readonly writing = Latch.makeUnsafe()
  /** The report that was begun last. */
  latest = ""
  private readonly written = new Map<string, number>()

  /** Takes a line that the server has printed. */
  hear(line: string): void {
    const [, report, event] = /(report-\d+): (begun|written)/.exec(line) ?? []
    if (report === undefined) return
    if (event === "begun") {
      this.latest = report
      this.writing.openUnsafe()
    } else {
      this.written.set(report, now())
      this.writing.closeUnsafe()
    }
  }

  /** What became of `report`, the server having ended at `endedAt`. */
  readonly outcome = Effect.fnUntraced({ self: this }, function* (directory: string, report: string, endedAt: number) {
    const fs = yield* FileSystem.FileSystem
    const checked = yield* fs.readFile(join(directory, report)).pipe(
      Effect.mapError(({ message }) => new Lost({ message })),
      Effect.flatMap((file) => check(file, whole(report))),
      Effect.result
    )
    const saw = Result.match(checked, { onSuccess: (saw) => `${report}: ${saw}`, onFailure: ({ message }) => message })
    const ended: Ended = {
      _tag: "Ended",
      client: "cron job",
      lost: Result.isFailure(checked),
      saw,
      at: this.written.get(report) ?? endedAt
    }
    return ended
  })
}
