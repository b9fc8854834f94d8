"""Text and tables as Markdown."""
import re

def md(text, names=()):
    "`text` as Markdown that shows what it says; `words` in back quotes that name something exported are links"
    def code(s):
        ref = names.get(s.rstrip('()')) if names else None
        return f'{{py:obj}}`{s} <{ref}>`' if ref else f'`{s}`'
    parts = re.split(r'`([^`]+)`', ' '.join(text.split()))
    return ''.join(code(p) if i % 2 else re.sub(r'([\\*_{}\[\]<>#$|])', r'\\\1', p) for i, p in enumerate(parts))

def table(head, rows):
    "A Markdown table; empty without rows"
    if not rows: return []
    bar = lambda cells: '| ' + ' | '.join(re.sub(r'(?<!\\)\|', r'\\|', c) for c in cells) + ' |'
    return [bar(head), '|' + ' --- |'*len(head), *map(bar, rows), '']
