/**
 * Copies of the project, in which something is to be changed.
 */
import { cpSync, mkdtempSync, readFileSync, symlinkSync, writeFileSync } from "node:fs"
import { tmpdir } from "node:os"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"

export const root = fileURLToPath(new URL("..", import.meta.url))

/** A copy of some of its files and directories, beside what is installed. Gives the directory. */
export const copyOf = (purpose: string, names: ReadonlyArray<string>): string => {
  const dir = mkdtempSync(join(tmpdir(), `${purpose}-`))
  const filter = (path: string) => basename(path) !== "node_modules"
  for (const name of names) cpSync(join(root, name), join(dir, name), { recursive: true, filter })
  symlinkSync(join(root, "node_modules"), join(dir, "node_modules"))
  return dir
}

/** A change of the library: `from`, which is in `file` exactly once, becomes `to`. */
export interface Change {
  /** In `src`. */
  readonly file: string
  readonly from: string
  readonly to: string
}

/** Makes a change in a copy. Gives what takes it back, or nothing where the text is not there exactly once. */
export const change = (dir: string, { file, from, to }: Change): (() => void) | undefined => {
  const path = join(dir, "src", file)
  const source = readFileSync(path, "utf8")
  if (source.split(from).length !== 2) return undefined
  writeFileSync(
    path,
    source.replace(from, () => to)
  )
  return () => writeFileSync(path, source)
}
