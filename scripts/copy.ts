/**
 * Copies of the project, in which something is to be changed.
 */
import { cpSync, mkdtempSync, symlinkSync } from "node:fs"
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
