// Conditions of a device or target that are not as they should be: some say what is well, others what is not.

const WELL = new Set(["Ready", "NotesReadable", "Reachable"]);

export function troubles(thing) {
  return thing.conditions.filter((condition) => (condition.status === "True") !== WELL.has(condition.type));
}
