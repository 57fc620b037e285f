"""Write the dashboards' JSON beside their code: ``python -m dashboards``."""

from dashboards.boards import files

if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text, encoding="utf-8")
        print(path)
