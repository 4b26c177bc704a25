/**
 * The code in the documentation: every TypeScript fence of the README and of the docstrings in `src`, as files that can
 * be type-checked and run.
 */
import { execFile } from "node:child_process"
import { existsSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs"
import { basename, join } from "node:path"
import { fileURLToPath } from "node:url"

const root = fileURLToPath(new URL("../../", import.meta.url))

export interface Snippet {
  /** Where it stands, as in `src/Kms.ts:12`. */
  readonly where: string
  readonly code: string
  /** A whole program; a fragment only has to compile. */
  readonly isProgram: boolean
  /** How many listeners it opens. */
  readonly listeners: number
}

/** The fences of one file, in their order. In a source file, those in its docstrings. */
const snippetsOf = (path: string): Array<Snippet> => {
  const lines = readFileSync(join(root, path), "utf8").split("\n")
  const prefix = path.endsWith(".ts") ? /^ *\* ?/ : /^/
  const snippets: Array<Snippet> = []
  let open: { readonly line: number; readonly fence: string; readonly code: Array<string> | undefined } | undefined
  lines.forEach((raw, index) => {
    const line = raw.replace(prefix, "")
    if (open === undefined) {
      const [, fence, language] = /^( *`{3,})(\w*)/.exec(line) ?? []
      // A source file also has lines that are no docstring.
      if (fence === undefined || !prefix.test(raw)) return
      open = { line: index + 1, fence, code: language === "ts" || language === "typescript" ? [] : undefined }
    } else if (line.trimEnd() !== open.fence) {
      // In a list a fence is indented, and its code with it.
      open.code?.push(line.slice(open.fence.indexOf("`")))
    } else {
      if (open.code !== undefined) snippets.push(snippet(`${path}:${open.line}`, open.code.join("\n")))
      open = undefined
    }
  })
  if (open !== undefined) throw new Error(`${path}:${open.line}: the fence has no end`)
  return snippets
}

const snippet = (where: string, code: string): Snippet => {
  const listeners = code.replace(/(?<!:)\/\/.*$/gm, "").match(/\bport(?=\s*[:,}])|\blisten\(\d|\bpath(?=: "\/)/g)
  return { where, code, isProgram: /\brunMain\b/.test(code), listeners: listeners?.length ?? 0 }
}

export const readme = "README.md"
export const hasReadme = existsSync(join(root, readme))

export const snippets: ReadonlyArray<Snippet> = [
  ...(hasReadme ? [readme] : []),
  ...readdirSync(join(root, "src"))
    .filter((name) => name.endsWith(".ts"))
    .map((name) => `src/${name}`)
].flatMap(snippetsOf)

/** A directory inside the repository, so that imports resolve as they do for its own files, but one that git ignores. */
export const makeDirectory = (): string => {
  mkdirSync(join(root, "scratch"), { recursive: true })
  return mkdtempSync(join(root, "scratch", "snippets-"))
}

export const removeDirectory = (directory: string): void => rmSync(directory, { recursive: true, force: true })

/** Writes a snippet as a file that is called after where it stands. */
export const write = (directory: string, { where }: Snippet, code: string): string => {
  const file = join(directory, `${where.replace(/\W+/g, "-")}.ts`)
  writeFileSync(file, code)
  return file
}

/** What a fragment declares is for its reader to use. */
const exported = (code: string): string => code.replace(/^(?=(const|let|class|function|interface|type) )/gm, "export ")

/** With free ports, wherever it names one. */
export const onFreePorts = (code: string): string => code.replace(/(?<=\bport: |\blisten\()\d+/g, "0")

/** Type-checks all snippets at once, as `npm run types` does. Gives what the compiler printed: nothing if all is well. */
export const typeCheck = async (directory: string): Promise<string> => {
  for (const snippet of snippets) write(directory, snippet, snippet.isProgram ? snippet.code : exported(snippet.code))
  const project = join(directory, "tsconfig.json")
  writeFileSync(project, JSON.stringify({ extends: "../../tsconfig.json", include: ["*.ts"] }))
  const tsgo = join(root, "node_modules/.bin/effect-tsgo")
  const compiler = await run(tsgo, ["get-exe-path"])
  const checked = await run(compiler.output.trim(), ["--project", project, "--pretty", "false"])
  return checked.code === 0
    ? ""
    : `exit code ${checked.code}\n${checked.output.replaceAll(`scratch/${basename(directory)}/`, "")}`
}

const run = (
  command: string,
  args: ReadonlyArray<string>
): Promise<{ readonly code: number; readonly output: string }> =>
  new Promise((resolve) => {
    execFile(command, args, { cwd: root }, (error, stdout, stderr) => {
      resolve({ code: error === null ? 0 : Number(error.code ?? 1), output: stdout + stderr })
    })
  })
