from django.db import migrations, models


class Migration(migrations.Migration):
    dependencies = [("training", "0005_imported_datasets")]

    operations = [
        migrations.AddField(
            model_name="preferencedataset",
            name="filters",
            field=models.JSONField(default=dict),
        ),
    ]
